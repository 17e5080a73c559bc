"""What the evaluation scripts share: their flags, the pairs that they read, and how they report a figure."""

from dataclasses import dataclass
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.config import DeviceConfig
from ace_counterfactuals.core.base.runtime import choose_device, notice
from ace_counterfactuals.core.base.settings import UserError, flag, group
from ace_counterfactuals.core.data.datasets import DATASETS
from ace_counterfactuals.core.evaluation.pictures import Population, Reader
from ace_counterfactuals.core.runs.experiment import Pair, read_pairs
from ace_counterfactuals.models.loading import digest

FACES = [name for name, spec in DATASETS.items() if spec.faces]


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    output_path: str = flag("results", "folder that holds Original and Results", path=True)
    exp_name: str = flag("exp", "experiment, such as exp/explanation or exp/pre-explanation")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(DeviceConfig):
    batch_size: int = flag(15, "pictures at once; the figure does not depend on it", low=1)
    json: str = flag("", "file to write the figure to, beside printing it")


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    weights_path: str = flag("", "weights of the network", path=True)


@dataclass(frozen=True, kw_only=True)
class OracleConfig:
    oracle_path: str = flag("", "weights of the attribute oracle", path=True)
    dataset: str = flag("CelebA", "data set of the oracle", choices=FACES)


@dataclass(frozen=True, kw_only=True)
class NetworkMetricConfig:
    """Flags of a metric that needs nothing but one network."""

    results: ResultsConfig = group(ResultsConfig, "results")
    weights: WeightsConfig = group(WeightsConfig, "network")
    compute: ComputeConfig = group(ComputeConfig, "where")


def make_reader(compute: ComputeConfig) -> Reader:
    """Refuses what would fail only after the work is done, too."""
    if not Path(compute.json).parent.is_dir():
        raise UserError(f"--json {compute.json}: its folder does not exist")
    return Reader(choose_device(compute.device, compute.gpu), compute.batch_size, compute.num_workers)


def open_pairs(results: ResultsConfig, population: Population) -> list[Pair]:
    """The pairs of the population; their number is said on stderr."""
    pairs = read_pairs(Path(results.output_path), results.exp_name, population.folders)
    notice(f"{len(pairs)} pairs ({population.name}) of {results.exp_name}")
    return pairs


def shown(value: float | None, form: str = "") -> str:
    """A figure as printed; None: it was to be computed on no picture."""
    return "n/a (0 images)" if value is None else format(value, form)


def write_figures(
    path: str,
    figures: dict[str, float | None],
    *,
    results: ResultsConfig,
    population: str,
    n: int,
    weights: dict[str, str] | None = None,
    **more,
) -> None:
    """The JSON file of --json, if one is wanted: figures, on what they were computed, and digests of the weights.

    weights: flag -> file.
    """
    if not path:
        return
    digests = {name: {"file": file, "sha256": digest(file)} for name, file in (weights or {}).items()}
    values = {"figures": figures, "population": population, "n": n, "output_path": results.output_path}
    values |= {"exp_name": results.exp_name, "weights": digests, **more}
    atomic.write_json(Path(path), values)
