"""FID's, sFID's and FID∞'s arithmetic in what another classifier sees before its last linear layer: for pictures that
Inception was not made for, such as small or grey ones. It is named after the network and its file, and is not FID.

    python evaluate.py --output_path OUT --exp_name exp --features other.pt

Lower is better. Compare only within one network. In the features of the attacked classifier itself it means little:
these are what the attack moves.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from ace_counterfactuals.core.evaluation.judges import FEATURES, INCEPTION
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import FLIPPED, Difference, Figure
from ace_counterfactuals.core.evaluation.session import Subject, Task
from ace_counterfactuals.core.runs.experiment import Pair

ENOUGH = 2048
FEWEST = 4  # so that each half has two
HALVES = f"standard error by the spread over halves of {SPLITS} seeded splits"
HOW = (HALVES, f"{HALVES}, and of their mean", f"{HALVES}, and of the fitted line")
DISTANCE, SPLIT, LIMIT = range(3)
KINDS = {"fid": DISTANCE, "sfid": SPLIT, "fid_infinity": LIMIT}
KINDS |= {"frechet": DISTANCE, "split_frechet": SPLIT, "frechet_infinity": LIMIT}


def figures(metric: Metric, subject: Subject) -> Iterator[Figure]:
    """Of each network and quantity."""
    pairs, is_fid = subject.of(FLIPPED), metric.judge is INCEPTION
    for network, task in subject.tasks[metric.judge].items():
        about = {"population": f"{FLIPPED.name}, against all originals", "n": len(pairs), "network": network}
        if len(pairs) < 2:
            few = ("of one picture there is no covariance",) if pairs else ()
            yield from (quantity.figure(None, notes=few, **about) for quantity in metric.quantities)
            continue
        numbers = numbers_of(subject, task)
        for quantity in metric.quantities:
            kind = KINDS[quantity.key]
            value, error = (None if np.isnan(number) else float(number) for number in numbers[kind])
            bounds = None if error is None else intervals.around(value, error)
            notes = few_notes(len(pairs), task.store.width, is_fid) + (("too few pictures to split",) * (value is None))
            if is_fid and kind == SPLIT and ENOUGH <= len(pairs) < 2 * ENOUGH:
                notes += (f"its halves are of fewer than {ENOUGH} pictures: more biased than FID",)
            yield quantity.figure(value, bounds, interval=HOW[kind] if bounds else "", notes=notes, **about)


def numbers_of(subject: Subject, task: Task) -> np.ndarray:
    """(3, 2): distance, split distance and limit, each with its standard error; NaN where undefined.

    They take long for many pictures, so they are kept by names and contents of all.
    """
    session, pairs, is_fid = subject.session, subject.of(FLIPPED), task.judge is INCEPTION
    originals = list(subject.originals.values())
    paths = [*originals, *(pair.counterfactual for pair in pairs)]
    described = [*(f"{path.name} {session.digest(path)}" for path in paths), str(len(originals))]
    key = hashlib.sha256("\n".join(described).encode()).digest()
    what = {"network": task.store.path.name, "seed": session.seed, "splits": SPLITS, "is_fid": is_fid}

    def compute() -> list[float]:
        sides = sides_of(task, pairs, originals)
        within, across = split_distances(sides, session.seed)
        error, of_mean = within.std(ddof=1), across.std(ddof=1) / np.sqrt(len(across))
        limit, line = extrapolate(sides, session.seed) or (np.nan, np.nan)
        whole = (fid if is_fid else distance)(sides.originals, sides.counterfactuals)
        return [whole, error, across.mean(), np.hypot(error, of_mean), limit, np.hypot(error, line)]

    return session.remember("frechet", what, key, compute).reshape(3, 2)


def sides_of(task: Task, pairs: Sequence[Pair], originals: Sequence[Path]) -> Sides:
    """Features of the originals and of the counterfactuals of ``pairs``."""
    sides = originals, [pair.counterfactual for pair in pairs]
    rows = [task.rows([(path,) for path in side]) for side in sides]
    names = [[path.name for path in side] for side in sides]
    return Sides(rows[0], names[0], rows[1], names[1])


def few_notes(n: int, width: int, is_fid: bool) -> tuple[str, ...]:
    if is_fid and n < ENOUGH:
        return (f"fewer than {ENOUGH} pictures: biased upwards, compare only sets of equal size",)
    return (f"fewer pictures than the {width} features",) if not is_fid and n < width else ()


def differences(metric: Metric, a: Subject, b: Subject, names: Sequence[str]) -> Iterator[Difference]:
    """Of the distances, over the pictures that are flipped in both; none for too few."""
    quantity, session = metric.quantities[0], a.session
    flipped = set(names).intersection(*({pair.name for pair in subject.of(FLIPPED)} for subject in (a, b)))
    if KINDS[quantity.key] != DISTANCE or len(flipped) < FEWEST:
        return
    sides = []
    for subject in (a, b):
        pairs = [pair for pair in subject.of(FLIPPED) if pair.name in flipped]
        sides.append((pairs, [pair.original for pair in pairs]))
    paths = [path for pairs, originals in sides for path in (*originals, *(pair.counterfactual for pair in pairs))]
    key = joined([bytes.fromhex(session.digest(path)) for path in paths])
    for network, task in a.tasks[metric.judge].items():

        def compute(task: Task = task) -> list[float]:
            first, second = (sides_of(task, *side) for side in sides)
            whole = [distance(side.originals, side.counterfactuals) for side in (first, second)]
            halves = [split_distances(side, session.seed)[0] for side in (first, second)]
            return [whole[1] - whole[0], (halves[1] - halves[0]).std(ddof=1)]

        if network in b.tasks[metric.judge]:
            what = {"network": task.store.path.name, "seed": session.seed, "splits": SPLITS}
            value, error = session.remember("difference", what, key, compute).tolist()
            bounds = intervals.around(value, error)
            yield quantity.difference(a, b, value, bounds, n=len(flipped), network=network)


FID = """
How unlike real pictures the counterfactuals are, as a set: the Frechet distance between Inception's features of them
and of all originals (Heusel et al. 2017), by pytorch-fid's arithmetic and weights.

    bash compute_FID.sh OUT exp/explanation

At least 0; lower is better. A copy of the originals scores best: FID does not show whether anything was changed. It is
biased upwards for few pictures: under about 2,048 compare only sets of equal size. `evaluate.py` takes the originals of
the experiment's own pictures, `compute_FID.sh` all of `OUT/Original`, as the original program does.
"""
SFID = """
Split FID: FID between the originals of one half of the names and the counterfactuals of the other half, in both
directions, averaged over ten seeded splits (Jeanneret et al. 2023). A counterfactual cannot score by resembling its own
original.

    bash compute_sFID.sh OUT exp/explanation

Lower is better, and it cannot reach 0. It shares FID's bias for few pictures. The second line that the command prints
is the deviation of the 20 values, not an error of their mean. Guided-diffusion's spatial FID is another metric.
"""
FID_INFINITY = """
What FID tends to with ever more pictures (Chong and Forsyth 2020): FID of seeded subsets of 15 sizes, a quarter of
the pictures to all, is read off at 1/N = 0. An original is drawn with its counterfactual.

Lower is better. It is free of the bias for few pictures, not of their noise: see its interval. Below 32 flipped
pictures there is none, and far below as many pictures as features (2,048) the line is not straight, and the limit still
too high.
"""
HOOKS = {"asked": "sets", "figures": figures, "differences": differences}
OF_INCEPTION = (
    ("fid", "FID", FID, "How unlike real pictures the counterfactuals are, as a set, to Inception."),
    ("sfid", "sFID", SFID, "FID between originals of one half and counterfactuals of the other."),
    ("fid_infinity", "FID∞", FID_INFINITY, "What FID tends to with ever more pictures: without its bias."),
)
for place, (key, name, text, meaning) in enumerate(OF_INCEPTION, 10):
    register(Metric(key, place, (Quantity(key, name, LOWER, LENGTH, meaning),), text, FLIPPED, INCEPTION, **HOOKS))
QUANTITIES = (
    Quantity("frechet", "Frechet distance ({})", LOWER, LENGTH, "FID's arithmetic in these features; not FID."),
    Quantity("split_frechet", "split Frechet distance ({})", LOWER, LENGTH, "sFID's arithmetic in these features."),
    Quantity("frechet_infinity", "Frechet distance∞ ({})", LOWER, LENGTH, "What it tends to with ever more pictures."),
)
register(Metric("frechet", 13, QUANTITIES, __doc__, FLIPPED, FEATURES, **HOOKS))
