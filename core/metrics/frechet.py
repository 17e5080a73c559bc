"""How sure a Frechet distance is: its spread over halves of the pictures, and what it tends to with ever more of them.

Pictures are drawn by name, an original with its counterfactual, so that a part resembles itself as the whole does.
"""

from dataclasses import dataclass

import numpy as np

from core.metrics.fid import fit, frechet_distance
from core.metrics.sfid import SPLITS, split_names

SIZES, SMALLEST, LEAST = 15, 0.25, 8


@dataclass(frozen=True, eq=False)
class Sides:
    """originals: (N, D) and counterfactuals: (M, D), features with the names of their pictures."""

    originals: np.ndarray
    original_names: list[str]
    counterfactuals: np.ndarray
    names: list[str]

    def of(self, here: set[str], there: set[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Originals among the names ``here``, and counterfactuals ``there``, where that is given."""
        chosen = self.names, here if there is None else there
        rows = [name in here for name in self.original_names], [name in chosen[1] for name in chosen[0]]
        return self.originals[rows[0]], self.counterfactuals[rows[1]]


def distance(sides: tuple[np.ndarray, np.ndarray]) -> float:
    return frechet_distance(*map(fit, sides))


def half_distances(sides: Sides, seed: int, splits: int = SPLITS) -> np.ndarray:
    """(2 splits,): the distance within each half of the seeded splits; NaN where a half has fewer than 2 pictures.

    Their deviation is the standard error of the distance over all pictures (delete-half jackknife, Shao and Wu 1989);
    their mean is larger than it, since a distance of fewer pictures is biased upwards.
    """
    halves = [half for split in range(splits) for half in split_names(sides.original_names, seed + split)]
    return np.array([distance(part) if min(map(len, part := sides.of(half))) > 1 else np.nan for half in halves])


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
