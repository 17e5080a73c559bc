"""Shapes of the page's plots, in units of the plot's area; report.html.j2 draws them as SVG."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ace_counterfactuals.core.evaluation.model import Experiment
from ace_counterfactuals.core.report.data import confidence_after, confidence_before, number, plain

BINS = 20
POINTS = 1000  # more are drawn as a density
CELLS = (48, 24)


@dataclass(frozen=True)
class Histogram:
    """before, after: pictures in each of BINS equal parts of [0, 1]."""

    before: list[int]
    after: list[int]

    @property
    def n(self) -> int:
        return sum(self.before) + sum(self.after)

    @property
    def top(self) -> int:
        return max(self.before + self.after)


@dataclass(frozen=True)
class Scatter:
    """Distance (x) against confidence (y), of those pictures that have both.

    points: (x, y, flipped, name), x and y in [0, 1]; cells: (column, row, share of the fullest), instead of many
    points, of a ``grid`` of columns and rows; limit: the distance at x = 1.
    """

    n: int
    limit: float
    points: list[tuple[float, float, bool, str]]
    cells: list[tuple[int, int, float]]
    grid: tuple[int, int] = CELLS


def confidence_histogram(experiment: Experiment) -> Histogram:
    before = count([confidence_before(picture) for picture in experiment.pictures])
    after = count([confidence_after(picture) for picture in experiment.pictures])
    return Histogram(before, after)


def count(values: Sequence[float | None]) -> list[int]:
    known = Counter(min(int(value * BINS), BINS - 1) for value in map(number, values) if value is not None)
    return [known[i] for i in range(BINS)]


def distance_scatter(experiment: Experiment) -> Scatter:
    known = []
    for picture in experiment.pictures:
        distance, confidence = number(picture.values.get("l1")), number(confidence_after(picture))
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
    """To 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
