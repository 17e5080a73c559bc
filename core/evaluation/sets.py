"""The figures that are of a set of pictures as a whole: Frechet distances, and how sure they are."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ace_counterfactuals.core.evaluation.cache import Store
from ace_counterfactuals.core.evaluation.figures import Answers
from ace_counterfactuals.core.evaluation.meanings import make_figure
from ace_counterfactuals.core.evaluation.metrics import fid, frechet, intervals, sfid
from ace_counterfactuals.core.evaluation.model import Figure
from ace_counterfactuals.core.evaluation.passes import Task
from ace_counterfactuals.core.evaluation.pictures import EVERY, FLIPPED
from ace_counterfactuals.core.runs.experiment import Pair

ENOUGH = 2048
HALVES = "standard error by the spread over halves of {} seeded splits"
KEYS = {True: ("fid", "sfid", "fid_infinity"), False: ("frechet", "split_frechet", "frechet_infinity")}


def frechet_figures(answers: Answers, role: str, task: Task, folder: Path) -> Iterator[Figure]:
    """The distance, its split variant and its limit.  folder: of the cache."""
    every, pairs, is_fid = answers.of(EVERY), answers.of(FLIPPED), role == "inception"
    about = {"population": f"{FLIPPED.name}, against all originals", "n": len(pairs)}
    about |= {} if is_fid else {"network": role}
    if len(pairs) < 2:
        few = {"notes": ("of one picture there is no covariance",)} if pairs else {}
        for key in KEYS[is_fid]:
            yield make_figure(key, None, None, **about, **few)
        return
    numbers, width = frechet_numbers(answers, task, every, pairs, folder, is_fid)
    notes = few_notes(len(pairs), width, is_fid)
    how = HALVES.format(sfid.SPLITS)
    hows = (how, f"{how}, and of their mean", f"{how}, and of the fitted line")
    for key, how, (value, error) in zip(KEYS[is_fid], hows, numbers.reshape(-1, 2), strict=True):
        shown = None if np.isnan(value) else float(value)
        interval = None if np.isnan(error) else intervals.around(shown, float(error))
        few = () if shown is not None else ("too few pictures to split",)
        if key == "sfid" and ENOUGH <= len(pairs) < 2 * ENOUGH:
            few += (f"its halves are of fewer than {ENOUGH} pictures: more biased than FID",)
        yield make_figure(key, shown, interval, interval=how if interval else "", notes=notes + few, **about)


def frechet_numbers(
    answers: Answers, task: Task, every: list[Pair], pairs: list[Pair], folder: Path, is_fid: bool
) -> tuple[np.ndarray, int]:
    """(6,): distance, split distance and limit, each with its standard error, NaN where undefined; and the width.

    every: whose originals count; pairs: whose counterfactuals do.  They take long for many pictures, so they are
    cached by names and contents of all.
    """
    originals, changed = [pair.original for pair in every], [pair.counterfactual for pair in pairs]
    described = [*(f"{path.name} {answers.digests[path].hex()}" for path in originals + changed), str(len(originals))]
    key = hashlib.sha256("\n".join(described).encode()).digest()
    settings = {"network": task.store.path.name, "seed": answers.seed, "splits": sfid.SPLITS, "is_fid": is_fid}
    store = Store(folder, "frechet", settings, "<f8")
    if key not in store:
        names = [[path.name for path in paths] for paths in (originals, changed)]
        sides = frechet.Sides(answers.rows(task, originals), names[0], answers.rows(task, changed), names[1])
        store.add([key], np.array([measure(sides, answers.seed, is_fid)]))
    return store.rows([key])[0], task.store.width


def measure(sides: frechet.Sides, seed: int, is_fid: bool) -> list[float]:
    both = sides.originals, sides.counterfactuals
    whole = fid.fid(*both) if is_fid else frechet.distance(both)
    within, across = frechet.split_distances(sides, seed)
    error, of_mean = within.std(ddof=1), across.std(ddof=1) / np.sqrt(len(across))
    limit, line = frechet.extrapolate(sides, seed) or (np.nan, np.nan)
    return [whole, error, across.mean(), np.hypot(error, of_mean), limit, np.hypot(error, line)]


def few_notes(n: int, width: int, is_fid: bool) -> tuple[str, ...]:
    if is_fid and n < ENOUGH:
        return (f"fewer than {ENOUGH} pictures: biased upwards, compare only sets of equal size",)
    return (f"fewer pictures than the {width} features",) if not is_fid and n < width else ()
