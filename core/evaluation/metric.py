"""What a metric declares, and how a figure follows from what the judges answered.

A module that calls ``register`` is all that a metric is: flags, tables, page, documentation and ``evaluate(only=...)``
follow from what it declares. Those of this project are the files of ``metrics/``.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np

from ace_counterfactuals.core.evaluation import intervals
from ace_counterfactuals.core.evaluation.model import EVERY, Difference, Figure, Population
from ace_counterfactuals.core.evaluation.session import Judge, Subject
from ace_counterfactuals.core.runs.experiment import Pair

LOWER, HIGHER = "lower", "higher"
SHARE, COSINE, LENGTH = (0.0, 1.0), (-1.0, 1.0), (0.0, float("inf"))
MEAN, WILSON = "studentised bootstrap over pictures", "Wilson"


@dataclass(frozen=True)
class Quantity:
    """A figure to be: what it is called and what it means.

    key: in metrics.json; name: as papers print it, with {} for a network's name where there may be several figures.
    better: 'lower' or 'higher'; span: least and greatest value; text: the meaning, in a sentence.
    share: whether it is a share of pictures, so that its interval is Wilson's.
    """

    key: str
    name: str
    better: str
    span: tuple[float, float]
    text: str
    share: bool = False

    def key_of(self, network: str = "") -> str:
        return f"{self.key}_{network.replace(' ', '_')}" if network else self.key

    def figure(
        self, value: float | None, bounds: tuple[float, float] | None = None, *, network: str = "", **more
    ) -> Figure:
        """The figure with its interval, kept within the span.  more: further fields of ``Figure``."""
        low, high = None, None
        if value is not None and bounds:
            low, high = min(value, max(self.span[0], bounds[0])), max(value, min(self.span[1], bounds[1]))
        told = {"key": self.key_of(network), "name": self.name.format(network), "better": self.better}
        return Figure(**told, meaning=self.text, value=value, low=low, high=high, **more)

    def mean(self, values: np.ndarray, population: str, seed: int) -> Figure:
        """The mean of (N,) numbers of pictures, with its interval."""
        n = len(values)
        if n == 0:
            return self.figure(None, population=population, n=0)
        bounds = intervals.wilson(float(np.sum(values)), n) if self.share else intervals.mean_interval(values, seed)
        few = (f"fewer than {intervals.FEWEST} pictures tell too little of an interval",) if bounds is None else ()
        how = WILSON if self.share else MEAN
        return self.figure(float(np.mean(values)), bounds, interval=how, population=population, n=n, notes=few)

    def difference(self, a: Subject, b: Subject, value: float, bounds: tuple[float, float], **more) -> Difference:
        """Of ``b`` minus ``a``, the interval kept within what two figures can differ by.  more: ``n``, ``network``."""
        most = self.span[1] - self.span[0]
        named = {"key": self.key_of(more.pop("network", "")), "first": a.stored.name, "second": b.stored.name}
        return Difference(**named, value=value, low=max(bounds[0], -most), high=min(bounds[1], most), **more)


def means(metric: "Metric", subject: Subject) -> Iterator[Figure]:
    """Of each quantity the mean over pictures; the numbers are kept of each picture."""
    pairs = subject.of(metric.population)
    columns = metric.measure(*metric.features(subject, pairs)) if pairs else [np.zeros(0)] * len(metric.quantities)
    for quantity, values in zip(metric.quantities, columns, strict=True):
        subject.keep(quantity.key, pairs, values)
        yield quantity.mean(values, metric.population.name, subject.session.seed)


def paired(metric: "Metric", a: Subject, b: Subject, names: Sequence[str]) -> Iterator[Difference]:
    """Of each quantity the mean difference of the pictures ``names``, of those that have a number in both."""
    for quantity in metric.quantities:
        key = quantity.key
        both = [n for n in names if key in a.values.get(n, {}) and key in b.values.get(n, {})]
        change = np.array([b.values[name][key] - a.values[name][key] for name in both])
        if bounds := intervals.mean_interval(change, a.session.seed):
            yield quantity.difference(a, b, float(change.mean()), bounds, n=len(both))


def none(*_) -> Iterator:
    """No figure, or no difference."""
    return iter(())


@dataclass(frozen=True)
class Metric:
    """Figures that are computed together, in three steps: features -> statistics -> numbers.

    name: in ``evaluate(only=...)``; place: orders the tables; text: Markdown for docs/metrics.md.
    population: of the counterfactuals.
    judge: whose answers are the features; None where records and folders tell all.
    asked: of which pictures: 'each' alone, the 'pair' together, the 'changed' alone; 'sets' of counterfactuals and of
    all originals; the counterfactuals of 'runs', two at a time.
    measure: ``features`` of N >= 1 pairs -> (N,) a quantity, its statistic of each picture.
    figures: to numbers with intervals; what is no mean over pictures replaces it.  differences: between experiments a
    and b, b minus a, on the pictures that both explained.
    """

    name: str
    place: float
    quantities: tuple[Quantity, ...]
    text: str
    population: Population = EVERY
    judge: Judge | None = None
    _: KW_ONLY
    asked: str = "each"
    measure: Callable[..., Sequence[np.ndarray]] = none
    figures: Callable[["Metric", Subject], Iterable[Figure]] = means
    differences: Callable[["Metric", Subject, Subject, Sequence[str]], Iterable[Difference]] = paired

    def pictures(self, pair: Pair) -> Iterator[tuple[Path, ...]]:
        """What is asked of a pair; the originals of sets are asked about apart from it."""
        if pair.folder not in self.population.folders:
            return
        if self.asked == "pair":
            yield pair.original, pair.counterfactual
        if self.asked == "each":
            yield (pair.original,)
        if self.asked in ("each", "changed", "sets"):
            yield (pair.counterfactual,)

    def features(self, subject: Subject, pairs: Sequence[Pair], network: str = "") -> tuple:
        """What ``measure`` takes: the answers (N, W) on originals and on counterfactuals, on one of these, or on both
        together; without a judge (subject, pairs)."""
        if self.judge is None:
            return subject, pairs
        task = subject.tasks[self.judge][network]
        return tuple(task.rows(asked) for asked in zip(*map(self.pictures, pairs), strict=True))

    def possible(self, *subjects: Subject) -> bool:
        """Whether its judge can be asked about these experiments."""
        return self.judge is None or all(self.judge in subject.tasks for subject in subjects)


METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """From now on the metric is computed by every evaluation that has what it needs."""
    METRICS[metric.name] = metric
    return metric


def all_metrics() -> list[Metric]:
    """Those of the project and those that were registered, in the order of the tables."""
    package = importlib.import_module("ace_counterfactuals.core.evaluation.metrics")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(METRICS.values(), key=lambda metric: metric.place)


OPENED = ("inception", "simsiam", "vggface2", "oracle", "cout", "unseen", "features", "lpips")
"""The names of judges in the order in which they are opened; those of a user's metric come after them."""


def judges_of(metrics: Sequence[Metric]) -> list[Judge]:
    """Each once, in the order in which they are opened."""
    judges = dict.fromkeys(metric.judge for metric in metrics if metric.judge)
    return sorted(judges, key=lambda judge: OPENED.index(judge.name) if judge.name in OPENED else len(OPENED))


def described(metrics: Sequence[Metric]) -> str:
    """Markdown: a row a figure, then what each metric says of itself."""
    rows = ["| figure | better | range | computed on | meaning |", "|---|---|---|---|---|"]
    sections = []
    for metric in metrics:
        for quantity in metric.quantities:
            low, high = ("∞" if end == LENGTH[1] else f"{end:g}" for end in quantity.span)
            cells = (quantity.name.format("network"), quantity.better, f"{low} to {high}", metric.population.name)
            rows.append(f"| {' | '.join(cells)} | {quantity.text} |")
        title = ", ".join(quantity.name.replace(" ({})", "") for quantity in metric.quantities)
        sections.append(f"\n\n## {title}\n\n{metric.text.strip()}")
    return "\n".join(rows) + "".join(sections)
