"""Settings of the networks: files of weights."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import flag


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Files of the networks of a run."""

    model_path: str = flag(
        "", "weights of the diffusion model: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_path: str = flag(
        "", "weights of the classifier: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_arch: str = flag("", "torchvision's name of the classifier, where its file does not tell")
