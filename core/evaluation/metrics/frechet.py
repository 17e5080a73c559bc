"""How sure a Frechet distance is: its spread over halves of the pictures, and what it tends to with ever more of them.

Pictures are drawn by name, an original with its counterfactual, so that a part resembles itself as the whole does.
"""

from dataclasses import dataclass

import numpy as np

from ace_counterfactuals.core.evaluation.metrics.fid import fit, frechet_distance
from ace_counterfactuals.core.evaluation.metrics.sfid import SPLITS, split_names

SIZES, SMALLEST, LEAST = 15, 0.25, 8


@dataclass(frozen=True, eq=False)
class Sides:
    """originals: (N, D) and counterfactuals: (M, D), features with the names of their pictures."""

    originals: np.ndarray
    original_names: list[str]
    counterfactuals: np.ndarray
    names: list[str]

    def of(self, chosen: set[str]) -> tuple[np.ndarray, np.ndarray]:
        """Originals and counterfactuals of the chosen names."""
        originals, changed = ([name in chosen for name in names] for names in (self.original_names, self.names))
        return self.originals[originals], self.counterfactuals[changed]


def distance(sides: tuple[np.ndarray, np.ndarray]) -> float:
    return frechet_distance(*map(fit, sides))


def split_distances(sides: Sides, seed: int, splits: int = SPLITS) -> tuple[np.ndarray, np.ndarray]:
    """(2 splits,) twice: within each half of the seeded splits, and from originals of one half to counterfactuals of
    the other, which are sFID's; NaN where a half has fewer than 2 pictures.

    The deviation of the first is the standard error of the distance over all pictures (delete-half jackknife, Shao
    and Wu 1989); their mean is larger than it, since a distance of fewer pictures is biased upwards.
    """
    within, across = [], []
    for split in range(splits):
        halves = [sides.of(half) for half in split_names(sides.original_names, seed + split)]
        if min(len(side) for half in halves for side in half) < 2:
            return np.full(2 * splits, np.nan), np.full(2 * splits, np.nan)
        (here, changed), (there, changed_there) = (tuple(map(fit, half)) for half in halves)
        within += [frechet_distance(here, changed), frechet_distance(there, changed_there)]
        across += [frechet_distance(here, changed_there), frechet_distance(there, changed)]
    return np.array(within), np.array(across)


def extrapolate(sides: Sides, seed: int) -> tuple[float, float] | None:
    """The distance of infinitely many pictures, and the standard error of the line that it is read from.

    Distances of seeded subsets of 15 sizes, a quarter of the pictures to all, are linear in 1/N; the line's height
    at 0 is free of the bias (Chong and Forsyth 2020, there with the originals left whole). None for too few pictures.
    """
    there = set(sides.names)
    pools = [[n for n in sides.original_names if (n in there) == paired] for paired in (True, False)]
    largest = len(pools[0])
    if int(SMALLEST * largest) < LEAST:
        return None
    rng = np.random.default_rng(np.random.SeedSequence([seed, largest]))
    inverse, values = [], []
    for size in np.unique(np.linspace(SMALLEST * largest, largest, SIZES).astype(int)):
        counts = size, round(size / largest * len(pools[1]))
        drawn = [rng.choice(pool, count, replace=False) for pool, count in zip(pools, counts, strict=True) if count]
        inverse.append(1 / size)
        values.append(distance(sides.of(set(np.concatenate(drawn).tolist()))))
    line = np.stack([np.ones(len(inverse)), inverse], 1)
    (height, slope), *_ = np.linalg.lstsq(line, values, rcond=None)
    residuals = np.array(values) - line @ (height, slope)
    scale = (residuals**2).sum() / (len(values) - 2)
    return float(height), float(np.sqrt(scale * np.linalg.inv(line.T @ line)[0, 0]))
