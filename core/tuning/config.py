"""All settings of tune.py: main.py's of networks, pictures, attack and refinement, and how long to search."""

import re
from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import flag, from_dict, group, to_dict
from ace_counterfactuals.core.data.config import DataConfig, RegionConfig
from ace_counterfactuals.core.evaluation.judges import UNSEEN_FLAGS
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.runs.config import MainConfig, WhereConfig
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig
from ace_counterfactuals.models.config import WeightsConfig

SECONDS = {"s": 1, "m": 60, "h": 3600}


def budget(text: str) -> str:
    """Checked text; see ``SearchConfig.limit``."""
    if not re.fullmatch(r"\d+(\.\d+)?[smh]|\d+ ?trials?", text) or not re.search("[1-9]", text):
        raise ValueError
    return text


budget.__name__ = "a time such as 90s, 10m or 1.5h, or a number of trials, such as 8trials"


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    output_path: str = flag(".", "folder for tuned.yaml and, in tuning/, its evidence", path=True, result=False)
    budget: str = flag("10m", "how long to search: 90s, 10m, 1.5h, or 8trials", kind=budget, result=False)
    unseen: tuple = UNSEEN_FLAGS["unseen"]
    overwrite: bool = flag(False, "begin anew: forget what was tried", result=False)

    @property
    def limit(self) -> tuple[float, float]:
        """Seconds and trials, of which one is infinite."""
        number, unit = re.fullmatch(r"([\d.]+) ?(.).*", self.budget).groups()
        forever = float("inf")
        return (forever, float(number)) if unit == "t" else (float(number) * SECONDS[unit], forever)


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """All flags of tune.py."""

    search: SearchConfig = group(SearchConfig, "search")
    data: DataConfig = group(DataConfig, "data: 8 to 16 pictures of what will be explained")
    weights: WeightsConfig = group(WeightsConfig, "weights")
    run: WhereConfig = group(WhereConfig, "where, how much at once")
    attack: AttackConfig = group(AttackConfig, "attack: what the search starts from")
    region: RegionConfig = group(RegionConfig, "region: where a picture may change")
    sampling: SamplingConfig = group(SamplingConfig, "sampling: what the search starts from")
    model: ModelConfig = group(ModelConfig, "U-Net: as it was trained")
    diffusion: DiffusionConfig = group(DiffusionConfig, "diffusion process: as it was trained")

    @property
    def main(self) -> MainConfig:
        """The same as settings of main.py, which no experiment in the output folder has a say in."""
        return from_dict(MainConfig, to_dict(self) | {"overwrite": True})
