"""The page: figures, transitions, masks and plots of each experiment, filled into report.html.j2."""

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
    """counts: (prediction on the original, on the counterfactual) -> pictures, where both are in ``classes``.

    shown, total: pictures counted and in all; found: classes in all.
    """

    classes: list[int]
    counts: dict[tuple[int, int], int]
    shown: int
    total: int
    found: int

    def heat(self, row: int, column: int) -> int:
        """A cell's count relative to the largest, from 0 for none to 10."""
        count = self.counts.get((row, column), 0)
        return -(-10 * count // max(self.counts.values())) if count else 0


def transitions(experiment: Experiment) -> Matrix:
    """Over the classes of the most frequent pairs, at most MATRIX."""
    counts = Counter((picture.prediction, picture.cf_prediction) for picture in experiment.pictures)
    classes: set[int] = set()
    for pair in frequent_pairs(experiment.pictures, limit=None):
        if len(classes.union(pair)) <= MATRIX:
            classes.update(pair)
    inside = {pair: count for pair, count in counts.items() if classes.issuperset(pair)}
    found = {label for pair in counts for label in pair}
    return Matrix(sorted(classes), inside, sum(inside.values()), counts.total(), len(found))


def figure_rows(evaluation: Evaluation) -> list[tuple[Figure, list[Figure | None]]]:
    """Each figure as the first experiment has it, and as every experiment has it, None where it has not."""
    by_key = [{figure.key: figure for figure in experiment.figures} for experiment in evaluation.experiments]
    keys = dict.fromkeys(key for figures in by_key for key in figures)
    rows = {key: [figures.get(key) for figures in by_key] for key in keys}
    return [(next(filter(None, cells)), cells) for cells in rows.values()]


def chosen_figures(experiment: Experiment) -> list[Figure]:
    """The first four of CHOSEN that are known."""
    known = {figure.key: figure for figure in experiment.figures if figure.value is not None}
    return [known[key] for key in CHOSEN if key in known][:4]


def render(evaluation: Evaluation, means: list[list[MeanMask]]) -> str:
    """The page's HTML, the same for the same evaluation.  means: of each experiment."""
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
        names={figure.key: figure.name for figure, _ in rows},
        styles=STYLES,
        scripts=SCRIPTS,
    )


def link(experiment: str, **filters) -> str:
    """The fragment of an address at which the page shows the pictures of a filter; ``from_`` is spelled ``from``."""
    values = {"experiment": experiment, **{name.rstrip("_"): value for name, value in filters.items()}}
    return "#" + urlencode({name: plain(str(value)) for name, value in values.items()})


def class_name(label: int, classes: tuple[str, ...] | None) -> str:
    """What the page calls a class, -1 being unknown."""
    if label < 0:
        return "unknown"
    return classes[label] if classes and label < len(classes) else f"class {label}"


def figure_text(value: float | None) -> str:
    """Four decimals; very small and very large ones as powers of ten."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4e}"
