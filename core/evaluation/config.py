"""The flags of evaluate.py: its own, and those that judges and metrics declare."""

from dataclasses import dataclass, make_dataclass
from typing import Any

from ace_counterfactuals.core.base.config import DeviceConfig
from ace_counterfactuals.core.base.settings import flag, group
from ace_counterfactuals.core.data.datasets import DATASETS
from ace_counterfactuals.core.evaluation.metric import all_metrics, judges_of
from ace_counterfactuals.models.config import ClassifierConfig

EXPLAINED = "the classifier that was explained, which COUT asks; what is not given is config.yaml's"


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    output_path: str = flag("results", "folder that holds Original and Results", path=True)
    exp_name: tuple = flag(
        ("exp",), "experiments, such as exp, exp/pre-explanation; several are compared", kind=str, many=True
    )
    allow_partial: bool = flag(False, "evaluate what is there of an incomplete experiment, and mark every figure")
    evaluation_path: str = flag("", "folder to write to; if not given, OUTPUT_PATH/Results/EXP/evaluation", path=True)
    cache_path: str = flag("", "folder of the cached answers of networks; if not given, the user's own", path=True)


@dataclass(frozen=True, kw_only=True)
class ExplainedConfig(ClassifierConfig):
    dataset: str = flag("", "data set, where no config.yaml tells", choices=DATASETS)
    query_label: int = flag(-1, "attribute or class that was left, where no config.yaml tells", low=-1)
    target_label: int = flag(-1, "class that was to be reached, where no config.yaml tells", low=-1)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(DeviceConfig):
    batch_size: int = flag(32, "pictures at once; no figure depends on it", low=1)
    seed: int = flag(4, "seed of splits and resamples", low=0)


def evaluate_config() -> Any:
    """The dataclass of all flags, those of metrics that were registered until now among them."""
    declared = {name: item for judge in judges_of(all_metrics()) for name, item in judge.flags.items()}
    options = {"frozen": True, "kw_only": True}
    networks = make_dataclass("NetworksConfig", [(name, Any, item) for name, item in declared.items()], **options)
    groups = [
        ("results", ResultsConfig, group(ResultsConfig, "results")),
        ("networks", networks, group(networks, "networks: each gives its figures; none is needed")),
        ("classifier", ExplainedConfig, group(ExplainedConfig, EXPLAINED)),
        ("compute", ComputeConfig, group(ComputeConfig, "where")),
    ]
    return make_dataclass("EvaluateConfig", groups, **options)


EvaluateConfig = evaluate_config()
"""The flags of the project's own metrics."""
