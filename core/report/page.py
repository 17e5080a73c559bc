"""The page: figures, transitions, masks and plots of each experiment, filled into report.html.j2."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import jinja2

from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Figure
from ace_counterfactuals.core.evaluation.tables import by_key
from ace_counterfactuals.core.report.data import confidences, flips_weakly, number, plain
from ace_counterfactuals.core.report.masks import MeanMask, frequent_pairs
from ace_counterfactuals.core.runs.records import WEAK

ASSETS = Path(__file__).parent / "assets"
STYLES = ("report.css", "pictures.css")
SCRIPTS = (
    *("dom.js", "theme.js", "tiles.js", "layers.js", "words.js"),
    *("filters.js", "cards.js", "detail.js", "report.js"),
)
MATRIX = 12  # classes
BINS = 20  # of the confidence
POINTS, CELLS = 1000, (48, 24)  # more points are drawn as a density, in columns and rows of cells
CHOSEN = ("flip_rate", "fid", "sfid", "fva", "s3", "mnac", "cout", "l1", "mask_area")  # to show first, four at most


@dataclass(frozen=True)
class Matrix:
    """counts: (prediction on the original, on the counterfactual) -> pictures, where both are in ``classes``, of
    ``found`` classes in all."""

    classes: list[int]
    counts: dict[tuple[int, int], int]
    found: int

    def heat(self, row: int, column: int) -> int:
        """A cell's count relative to the largest, from 0 for none to 10."""
        return -(-10 * self.counts.get((row, column), 0) // max(self.counts.values(), default=1))


def transitions(experiment: Experiment) -> Matrix:
    """Over the classes of the most frequent pairs, at most MATRIX."""
    pairs = frequent_pairs(experiment.pictures)
    classes: set[int] = set()
    for pair in pairs:
        if len(classes.union(pair)) <= MATRIX:
            classes.update(pair)
    inside = {pair: count for pair, count in pairs.items() if classes.issuperset(pair)}
    return Matrix(sorted(classes), inside, len(set().union(*pairs)))


@dataclass(frozen=True)
class Scatter:
    """Distance (x) against confidence (y) of the ``n`` pictures that have both.

    limit: the distance at x = 1; points: (x, y, flipped, name), x and y in [0, 1].
    cells: instead of more than POINTS points, (column, row, count relative to the largest) in a ``grid``.
    """

    n: int
    limit: float
    points: list[tuple[float, float, bool, str]]
    cells: list[tuple[int, int, float]]
    grid: tuple[int, int] = CELLS


def confidence_histogram(experiment: Experiment) -> dict[str, list[int]]:
    """before, after: how many confidences in the prediction lie in each of BINS equal parts of [0, 1]."""
    counts = {"before": [0] * BINS, "after": [0] * BINS}
    for picture in experiment.pictures:
        for side, share in zip(counts.values(), confidences(picture), strict=True):
            if share is not None:
                side[min(int(share * BINS), BINS - 1)] += 1
    return counts


def distance_scatter(experiment: Experiment) -> Scatter:
    """Of l1 and the confidence in the prediction on the counterfactual."""
    known = []
    for picture in experiment.pictures:
        distance, confidence = number(picture.values.get("l1")), confidences(picture)[1]
        if distance is not None and confidence is not None:
            known.append((distance, confidence, picture.flipped, plain(picture.name)))
    limit = round_up(max((distance for distance, *_ in known), default=1))
    points = [(x / limit, y, *rest) for x, y, *rest in known]
    if len(points) <= POINTS:
        return Scatter(len(points), limit, points, [])
    columns, rows = CELLS
    cells = Counter((min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)) for x, y, *_ in points)
    fullest = max(cells.values())
    return Scatter(len(points), limit, [], [(*cell, n / fullest) for cell, n in sorted(cells.items())])


def round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten; 0 to 1."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def chosen_figures(experiment: Experiment) -> list[Figure]:
    """The first four of CHOSEN that are known."""
    known = {figure.key: figure for figure in experiment.figures if figure.value is not None}
    return [known[key] for key in CHOSEN if key in known][:4]


def templates(*folders: Path) -> jinja2.Environment:
    """Those of the folders and of ASSETS, which escape what they are given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, ASSETS]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.filters |= {"figure": figure_text, "numeral": "{:,}".format}
    return environment


def render(evaluation: Evaluation, means: list[list[MeanMask]]) -> str:
    """The page's HTML, the same for the same evaluation.  means: of each experiment."""
    environment = templates()
    environment.globals |= {"link": link, "class_name": class_name, "limit": f"{WEAK:.0%}"}
    experiments = [
        {
            "of": experiment,
            "flips": sum(picture.flipped for picture in experiment.pictures),
            "weak": sum(map(flips_weakly, experiment.pictures)),
            "chosen": chosen_figures(experiment),
            "means": found,
            "matrix": transitions(experiment),
            "histogram": confidence_histogram(experiment),
            "scatter": distance_scatter(experiment),
        }
        for experiment, found in zip(evaluation.experiments, means, strict=True)
    ]
    rows = {key: (next(filter(None, cells)), cells) for key, cells in by_key(evaluation).items()}
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation, experiments=experiments, rows=rows, styles=STYLES, scripts=SCRIPTS
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
