"""The page itself: what it says of each experiment, filled into report.html.j2."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import jinja2

from core.evaluation.model import Evaluation, Experiment, Figure
from core.report.data import plain
from core.report.masks import MeanMask, frequent_pairs
from core.report.plots import BINS, CELLS, confidence_histogram, distance_scatter

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("tiles.js", "filters.js", "cards.js", "detail.js", "report.js")
MATRIX = 12  # classes


@dataclass(frozen=True)
class Matrix:
    """counts: by prediction on the original (row) and on the counterfactual (column), over ``classes``.

    shown, total: pictures in it and in all; found: classes in all.
    """

    classes: list[int]
    counts: dict[tuple[int, int], int]
    shown: int
    total: int
    found: int

    def heat(self, row: int, column: int) -> int:
        """0 to 10, of the fullest cell; any picture is at least 1."""
        count = self.counts.get((row, column), 0)
        return -(-10 * count // max(self.counts.values())) if count else 0


def transitions(experiment: Experiment) -> Matrix:
    """Of the classes in the most frequent changes, in the order of their numbers."""
    counts = Counter((picture.prediction, picture.cf_prediction) for picture in experiment.pictures)
    classes: set[int] = set()
    for pair in frequent_pairs(experiment.pictures, limit=None):
        if len(classes.union(pair)) <= MATRIX:
            classes.update(pair)
    inside = {pair: count for pair, count in counts.items() if classes.issuperset(pair)}
    found = {label for pair in counts for label in pair}
    return Matrix(sorted(classes), inside, sum(inside.values()), counts.total(), len(found))


@dataclass(frozen=True)
class Row:
    """A figure of every experiment, None where it is not known."""

    first: Figure
    cells: list[Figure | None]


def figure_rows(evaluation: Evaluation) -> list[Row]:
    by_key = [{figure.key: figure for figure in experiment.figures} for experiment in evaluation.experiments]
    keys = {key: figure for figures in reversed(by_key) for key, figure in figures.items()}
    order = list(dict.fromkeys(key for figures in by_key for key in figures))
    return [Row(keys[key], [figures.get(key) for figures in by_key]) for key in order]


def render(evaluation: Evaluation, means: list[list[MeanMask]]) -> str:
    """The same evaluation gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.filters["figure"] = figure_text
    experiments = [
        {
            "of": experiment,
            "flips": sum(picture.flipped for picture in experiment.pictures),
            "means": found,
            "matrix": transitions(experiment),
            "histogram": confidence_histogram(experiment),
            "scatter": distance_scatter(experiment),
            "class_name": lambda label, classes=experiment.classes: class_name(label, classes),
            "link": lambda name=experiment.name, **filters: link(name, **filters),
        }
        for experiment, found in zip(evaluation.experiments, means, strict=True)
    ]
    rows = figure_rows(evaluation)
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        experiments=experiments,
        rows=rows,
        names={row.first.key: row.first.name for row in rows},
        bins=BINS,
        cells=CELLS,
        scripts=SCRIPTS,
    )


def link(experiment: str, **filters) -> str:
    """A fragment that shows the pictures of a filter; ``from_`` is spelled ``from``."""
    values = {"experiment": experiment, **{name.rstrip("_"): value for name, value in filters.items()}}
    return "#" + urlencode({name: plain(str(value)) for name, value in values.items()})


def class_name(label: int, classes: tuple[str, ...] | None) -> str:
    if label < 0:
        return "unknown"
    return classes[label] if classes and label < len(classes) else f"class {label}"


def figure_text(value: float | None) -> str:
    """Four decimals, two from 100 on; very small and very large ones as powers of ten."""
    if value is None:
        return "n/a"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        return f"{value:.3e}"
    return f"{value:.2f}" if size >= 100 else f"{value:.4f}"
