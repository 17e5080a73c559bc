"""Several experiments beside each other: paired differences, and how diverse their counterfactuals are."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ace_counterfactuals.core.evaluation.cache import Store, joined
from ace_counterfactuals.core.evaluation.figures import Answers, mean_figure
from ace_counterfactuals.core.evaluation.meanings import LENGTH, MEANINGS, key_of
from ace_counterfactuals.core.evaluation.metrics import frechet, intervals
from ace_counterfactuals.core.evaluation.metrics.sfid import SPLITS
from ace_counterfactuals.core.evaluation.model import Difference, Figure
from ace_counterfactuals.core.evaluation.passes import Job, Task
from ace_counterfactuals.core.evaluation.pictures import EVERY, FLIPPED
from ace_counterfactuals.core.runs.experiment import Pair

FEWEST = 4  # so that each half has two


def common(experiments: Sequence[Sequence[Pair]]) -> dict[str, tuple[Pair, ...]]:
    """Name -> its pair in each experiment, of the pictures that lie in the same of the four folders in all."""
    first, *others = [{pair.name: pair for pair in pairs} for pairs in experiments]
    found = {name: (pair, *(other.get(name) for other in others)) for name, pair in first.items()}
    return {name: pairs for name, pairs in found.items() if len({pair and pair.folder for pair in pairs}) == 1}


def diversity_jobs(task: Task, pairs: Sequence[Pair]) -> Iterator[Job]:
    for a, b in combinations(pairs, 2):
        yield task, (a.counterfactual, b.counterfactual)


def diversity_figure(task: Task, every: Sequence[Answers], seed: int) -> Figure:
    """sigma_L of the experiments together; what it is of a picture is kept in each of them."""
    shared, distances = common([answers.pairs for answers in every]), {}
    for name, pairs in shared.items():
        digests = [answers.digests[pair.counterfactual] for answers, pair in zip(every, pairs, strict=True)]
        distances[name] = task.store.rows([joined(both) for both in combinations(digests, 2)]).mean()
    for answers in every:
        for name, value in distances.items():
            answers.values.setdefault(name, {})["lpips"] = float(value)
    population = f"{EVERY.name}, in the same folder in all {len(every)} experiments"
    return mean_figure("lpips", np.array(list(distances.values())), population, seed)


def differences(a: Answers, b: Answers, folder: Path) -> Iterator[Difference]:
    """Figures of ``b`` minus those of ``a``, on the pictures that both explained."""
    originals = [{pair.name: answers.digests[pair.original] for pair in answers.pairs} for answers in (a, b)]
    shared = [name for name, digest in originals[0].items() if originals[1].get(name) == digest]
    for key in MEANINGS:
        both = [n for n in shared if key in a.values.get(n, {}) and key in b.values.get(n, {})]
        change = np.array([b.values[name][key] - a.values[name][key] for name in both])
        if key != "lpips" and (interval := intervals.mean_interval(change, a.seed)):
            yield difference(a, b, key, float(change.mean()), interval, len(both))
    for role in a.plan.frechet.keys() & b.plan.frechet.keys():
        if found := frechet_difference(a, b, role, set(shared), folder):
            value, error, n = found
            key = "fid" if role == "inception" else key_of("frechet", role)
            yield difference(a, b, key, value, intervals.around(value, error), n)


def difference(a: Answers, b: Answers, key: str, value: float, interval: tuple[float, float], n: int) -> Difference:
    first, second = (answers.plan.source.name for answers in (a, b))
    least, most = MEANINGS[key].span if key in MEANINGS else LENGTH
    interval = max(interval[0], least - most), min(interval[1], most - least)
    return Difference(key=key, first=first, second=second, value=value, low=interval[0], high=interval[1], n=n)


def frechet_difference(
    a: Answers, b: Answers, role: str, shared: set[str], folder: Path
) -> tuple[float, float, int] | None:
    """(difference, its standard error, pictures) over the pictures that are flipped in both; None for too few."""
    flipped = shared.intersection(*({pair.name for pair in answers.of(FLIPPED)} for answers in (a, b)))
    if len(flipped) < FEWEST:
        return None
    paths = []
    for answers in (a, b):
        pairs = [pair for pair in answers.of(FLIPPED) if pair.name in flipped]
        paths.append(([pair.original for pair in pairs], [pair.counterfactual for pair in pairs]))
    task = a.plan.frechet[role]
    key = joined(
        [answers.digests[path] for answers, sides in zip((a, b), paths, strict=True) for path in sum(sides, [])]
    )
    store = Store(folder, "difference", {"network": task.store.path.name, "seed": a.seed, "splits": SPLITS}, "<f8")
    if key not in store:
        sides = []
        for answers, (originals, changed) in zip((a, b), paths, strict=True):
            names = [path.name for path in changed]
            sides.append(frechet.Sides(answers.rows(task, originals), names, answers.rows(task, changed), names))
        whole = [frechet.distance((side.originals, side.counterfactuals)) for side in sides]
        first, second = (frechet.split_distances(side, a.seed)[0] for side in sides)
        store.add([key], np.array([[whole[1] - whole[0], (second - first).std(ddof=1)]]))
    value, error = store.rows([key])[0].tolist()
    return value, error, len(flipped)
