"""Shapes of the page's plots, in units of the plot's area; report.html.j2 draws them as SVG."""

import math
from collections import Counter
from dataclasses import dataclass

from ace_counterfactuals.core.evaluation.model import Experiment
from ace_counterfactuals.core.report.data import confidence_after, confidence_before, number, plain

BINS = 20
POINTS = 1000  # more are drawn as a density
CELLS = (48, 24)


@dataclass(frozen=True)
class Histogram:
    """before, after: pictures in each of BINS equal parts of [0, 1]; n: their sum; top: the largest."""

    before: list[int]
    after: list[int]
    n: int
    top: int


@dataclass(frozen=True)
class Scatter:
    """Distance (x) against confidence (y) of the ``n`` pictures that have both.

    points: (x, y, flipped, name), x and y in [0, 1]; instead of more than POINTS of them, cells: (column, row, count
    relative to the largest) of a ``grid`` of columns and rows; limit: the distance at x = 1.
    """

    n: int
    limit: float
    points: list[tuple[float, float, bool, str]]
    cells: list[tuple[int, int, float]]
    grid: tuple[int, int] = CELLS


def confidence_histogram(experiment: Experiment) -> Histogram:
    """Of the known confidences in the predictions on originals and on counterfactuals."""
    counts = []
    for confidence in (confidence_before, confidence_after):
        values = (number(confidence(picture)) for picture in experiment.pictures)
        known = Counter(min(int(value * BINS), BINS - 1) for value in values if value is not None)
        counts.append([known[i] for i in range(BINS)])
    return Histogram(*counts, n=sum(map(sum, counts)), top=max(map(max, counts)))


def distance_scatter(experiment: Experiment) -> Scatter:
    """Of l1 and the confidence in the prediction on the counterfactual."""
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
