"""All settings of postprocessing.py."""

from dataclasses import dataclass, field, fields, make_dataclass

from ace_counterfactuals.core.base.settings import group
from ace_counterfactuals.core.data.config import DataConfig, RegionConfig
from ace_counterfactuals.core.method.config import OF_REFINEMENT, AttackConfig, SamplingConfig
from ace_counterfactuals.core.runs.config import ExperimentConfig, RunConfig
from ace_counterfactuals.models.config import DiffusionConfig, ModelConfig, WeightsConfig

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
    """``config`` as postprocessing.py takes it: what results depend on, and paths, default to None, the run's own.

    SWEPT flags take several values.  without: flags that are left out.
    """
    items = []
    for item in fields(config):
        default = None if item.metadata["result"] or item.metadata["path"] else item.default
        metadata = {**item.metadata, "many": item.name in SWEPT or item.name in OF_REFINEMENT}
        items.append((item.name, item.type, field(default=default, metadata=metadata)))
    return make_dataclass(config.__name__, [item for item in items if item[0] not in without], frozen=True)


PostSampling, PostWeights, PostData = map(of_the_run, (SamplingConfig, WeightsConfig, DataConfig))
PostModel, PostDiffusion, PostAttack = map(of_the_run, (ModelConfig, DiffusionConfig, AttackConfig))
PostRegion, PostRun = of_the_run(RegionConfig), of_the_run(RunConfig, without=("check",))


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
