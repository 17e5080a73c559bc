"""All settings of postprocessing.py."""

from dataclasses import make_dataclass, replace
from typing import Any

from ace_counterfactuals.core.base.settings import flags_of, group
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


def of_the_run(config: type) -> type:
    """The flags of ``config`` as postprocessing.py takes them: None is the run's own, the SWEPT take several values.

    Only what results depend on, and paths, are the run's; the others keep their defaults.
    """
    items = []
    for name, known in flags_of(config).items():
        default = None if known.result or known.path else known.default
        many = name in SWEPT or name in OF_REFINEMENT
        items.append((name, Any, replace(known, default=default, many=many).field()))
    return make_dataclass(config.__name__, [item for item in items if item[0] != "check"], frozen=True)


GROUPS = {
    "output": (ExperimentConfig, "the experiment whose pre-explanations are refined"),
    "sampling": (of_the_run(SamplingConfig), "sampling: the refinement"),
    "weights": (of_the_run(WeightsConfig), "weights"),
    "run": (of_the_run(RunConfig), "run: where, how much at once, which part"),
    "model": (of_the_run(ModelConfig), "U-Net: as it was trained"),
    "diffusion": (of_the_run(DiffusionConfig), "diffusion process: as it was trained"),
    "data": (of_the_run(DataConfig), "data: the run's; to be given for a folder of the original program"),
    "region": (of_the_run(RegionConfig), "region: the run's"),
    "attack": (of_the_run(AttackConfig), "attack: the run's; understood, but nothing is attacked"),
}
PostConfig: Any = make_dataclass(
    "PostConfig", [(n, c, group(c, title)) for n, (c, title) in GROUPS.items()], frozen=True
)
"""All flags of postprocessing.py: those of main.py, so that the command lines of the original are understood."""
