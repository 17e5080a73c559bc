"""All settings of postprocessing.py."""

from dataclasses import dataclass, field, fields, make_dataclass

from ace_counterfactuals.core.base.settings import group
from ace_counterfactuals.core.data.config import DataConfig, RegionConfig
from ace_counterfactuals.core.method.config import OF_REFINEMENT, AttackConfig, SamplingConfig
from ace_counterfactuals.core.runs.config import ExperimentConfig, RunConfig
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig
from ace_counterfactuals.models.config import WeightsConfig

SWEPT = (
    "model_path",
    "timestep_respacing",
    "sampling_time_fraction",
    "sampling_dilation",
    "sampling_inpaint",
    "seed",
)
"""The flags of postprocessing.py that take several values; the last varies fastest."""


def of_the_run(config: type, *, without: tuple[str, ...] = ()) -> type:
    """The flags of ``config`` as postprocessing.py takes them: None is the run's own, the SWEPT take several values.

    Only what results depend on, and paths, are the run's; the others keep their defaults.
    """
    items = []
    for item in fields(config):
        default = None if item.metadata["result"] or item.metadata["path"] else item.default
        metadata = {**item.metadata, "many": item.name in SWEPT or item.name in OF_REFINEMENT}
        items.append((item.name, item.type, field(default=default, metadata=metadata)))
    return make_dataclass(config.__name__, [item for item in items if item[0] not in without], frozen=True)


PostSampling, PostWeights, PostData = (of_the_run(config) for config in (SamplingConfig, WeightsConfig, DataConfig))

PostModel, PostDiffusion, PostAttack = (of_the_run(config) for config in (ModelConfig, DiffusionConfig, AttackConfig))

PostRegion = of_the_run(RegionConfig)

PostRun = of_the_run(RunConfig, without=("check",))


@dataclass(frozen=True, kw_only=True)
class PostConfig:
    """All flags of postprocessing.py: those of main.py, so that the command lines of the original are understood."""

    output: ExperimentConfig = group(ExperimentConfig, "the experiment whose pre-explanations are refined")
    sampling: PostSampling = group(PostSampling, "sampling: the refinement")
    weights: PostWeights = group(PostWeights, "weights")
    run: PostRun = group(PostRun, "run: where, how much at once, which part")
    model: PostModel = group(PostModel, "U-Net: as it was trained")
    diffusion: PostDiffusion = group(PostDiffusion, "diffusion process: as it was trained")
    data: PostData = group(PostData, "data: the run's; to be given for a folder of the original program")
    region: PostRegion = group(PostRegion, "region: the run's")
    attack: PostAttack = group(PostAttack, "attack: the run's; understood, but nothing is attacked")
