"""The figures that are of two sets of pictures: Frechet distances, how sure they are, and their differences."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ace_counterfactuals.core.evaluation import intervals
from ace_counterfactuals.core.evaluation.cache import joined
from ace_counterfactuals.core.evaluation.gaussians import (
    SPLITS,
    Sides,
    distance,
    extrapolate,
    fid,
    split_distances,
)
from ace_counterfactuals.core.evaluation.judges import INCEPTION
from ace_counterfactuals.core.evaluation.metric import Metric, none
from ace_counterfactuals.core.evaluation.model import Difference, Figure
from ace_counterfactuals.core.evaluation.passes import Task
from ace_counterfactuals.core.evaluation.pictures import FLIPPED
from ace_counterfactuals.core.evaluation.subject import Subject
from ace_counterfactuals.core.runs.experiment import Pair

ENOUGH = 2048
FEWEST = 4  # so that each half has two
HALVES = f"standard error by the spread over halves of {SPLITS} seeded splits"
HOW = (HALVES, f"{HALVES}, and of their mean", f"{HALVES}, and of the fitted line")
DISTANCE, SPLIT, LIMIT = range(3)


def set_figures(metric: Metric, subject: Subject, which: Sequence[int]) -> Iterator[Figure]:
    """For each network the figures ``which``, one a quantity: DISTANCE, its SPLIT variant, its LIMIT."""
    pairs = subject.of(FLIPPED)
    for network, task in subject.tasks[metric.name].items():
        about = {"population": f"{FLIPPED.name}, against all originals", "n": len(pairs), "network": network}
        is_fid = metric.judge is INCEPTION
        if len(pairs) < 2:
            few = ("of one picture there is no covariance",) if pairs else ()
            yield from (quantity.figure(None, notes=few, **about) for quantity in metric.quantities)
            continue
        numbers = set_numbers(subject, task, is_fid)
        for kind, quantity in zip(which, metric.quantities, strict=True):
            value, error = (None if np.isnan(number) else float(number) for number in numbers[kind])
            bounds = None if error is None else intervals.around(value, error)
            notes = few_notes(len(pairs), task.store.width, is_fid) + (("too few pictures to split",) * (value is None))
            if is_fid and kind == SPLIT and ENOUGH <= len(pairs) < 2 * ENOUGH:
                notes += (f"its halves are of fewer than {ENOUGH} pictures: more biased than FID",)
            yield quantity.figure(value, bounds, interval=HOW[kind] if bounds else "", notes=notes, **about)


def of_sets(*which: int) -> dict[str, Any]:
    """What makes a ``Metric`` one of sets, with the figures ``which``, one a quantity."""
    compared = set_difference if DISTANCE in which else none
    return {"asked": "sets", "figures": partial(set_figures, which=which), "differences": compared}


def set_numbers(subject: Subject, task: Task, is_fid: bool) -> np.ndarray:
    """(3, 2): distance, split distance and limit, each with its standard error; NaN where undefined.

    They take long for many pictures, so they are kept by names and contents of all.
    """
    originals, changed = list(subject.originals.values()), [pair.counterfactual for pair in subject.of(FLIPPED)]
    described = [*(f"{path.name} {subject.digests[path].hex()}" for path in originals + changed), str(len(originals))]
    key = hashlib.sha256("\n".join(described).encode()).digest()
    what = {"network": task.store.path.name, "seed": subject.seed, "splits": SPLITS, "is_fid": is_fid}

    def compute() -> list[float]:
        sides = sides_of(subject, task, subject.of(FLIPPED))
        within, across = split_distances(sides, subject.seed)
        error, of_mean = within.std(ddof=1), across.std(ddof=1) / np.sqrt(len(across))
        limit, line = extrapolate(sides, subject.seed) or (np.nan, np.nan)
        whole = (fid if is_fid else distance)(sides.originals, sides.counterfactuals)
        return [whole, error, across.mean(), np.hypot(error, of_mean), limit, np.hypot(error, line)]

    return subject.remember("frechet", what, key, compute).reshape(3, 2)


def sides_of(subject: Subject, task: Task, pairs: Sequence[Pair], *, alone: bool = False) -> Sides:
    """Features of the counterfactuals of ``pairs`` and of all originals, or, ``alone``, of their own."""
    originals = [pair.original for pair in pairs] if alone else list(subject.originals.values())
    sides = originals, [pair.counterfactual for pair in pairs]
    rows = [subject.rows(task, [(path,) for path in side]) for side in sides]
    names = [[path.name for path in side] for side in sides]
    return Sides(rows[0], names[0], rows[1], names[1])


def few_notes(n: int, width: int, is_fid: bool) -> tuple[str, ...]:
    if is_fid and n < ENOUGH:
        return (f"fewer than {ENOUGH} pictures: biased upwards, compare only sets of equal size",)
    return (f"fewer pictures than the {width} features",) if not is_fid and n < width else ()


def set_difference(metric: Metric, a: Subject, b: Subject, names: Sequence[str]) -> Iterator[Difference]:
    """Of the distances, over the pictures that are flipped in both; none for too few."""
    flipped = set(names).intersection(*({pair.name for pair in subject.of(FLIPPED)} for subject in (a, b)))
    for network, task in a.tasks[metric.name].items():
        if network not in b.tasks[metric.name] or len(flipped) < FEWEST:
            continue
        pairs = [[pair for pair in subject.of(FLIPPED) if pair.name in flipped] for subject in (a, b)]
        paths = [[[p.original for p in side], [p.counterfactual for p in side]] for side in pairs]
        key = joined([s.digests[path] for s, sides in zip((a, b), paths, strict=True) for path in sum(sides, [])])
        what = {"network": task.store.path.name, "seed": a.seed, "splits": SPLITS}

        def compute(task=task, pairs=pairs) -> list[float]:
            sides = [sides_of(subject, task, own, alone=True) for subject, own in zip((a, b), pairs, strict=True)]
            whole = [distance(side.originals, side.counterfactuals) for side in sides]
            first, second = (split_distances(side, a.seed)[0] for side in sides)
            return [whole[1] - whole[0], (second - first).std(ddof=1)]

        value, error = a.remember("difference", what, key, compute).tolist()
        bounds = intervals.around(value, error)
        yield metric.quantities[DISTANCE].difference(a, b, value, bounds, n=len(flipped), network=network)
