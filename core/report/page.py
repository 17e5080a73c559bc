"""The page itself: what it says of each experiment, filled into report.html.j2."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import jinja2

from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Figure
from ace_counterfactuals.core.report.data import plain
from ace_counterfactuals.core.report.masks import MeanMask, frequent_pairs
from ace_counterfactuals.core.report.plots import confidence_histogram, distance_scatter

ASSETS = Path(__file__).parent / "assets"
STYLES = ("report.css", "pictures.css")
SCRIPTS = ("tiles.js", "words.js", "filters.js", "cards.js", "detail.js", "report.js")
MATRIX = 12  # classes
CHOSEN = ("flip_rate", "fid", "sfid", "fva", "s3", "mnac", "cout", "l1", "mask_area")  # to show first, four at most


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


def chosen_figures(experiment: Experiment) -> list[Figure]:
    known = {figure.key: figure for figure in experiment.figures if figure.value is not None}
    return [known[key] for key in CHOSEN if key in known][:4]


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
    environment.filters |= {"figure": figure_text, "numeral": "{:,}".format}
    experiments = [
        {
            "of": experiment,
            "flips": sum(picture.flipped for picture in experiment.pictures),
            "chosen": chosen_figures(experiment),
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
        styles=STYLES,
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
    """Four decimals; very small and very large ones as powers of ten."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4e}"
