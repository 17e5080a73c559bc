"""Frechet distances of features, and how sure they are: their spread over halves, and their limit for many pictures.

Pictures are drawn by name, an original with its counterfactual, so that a part resembles itself as the whole does.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ace_counterfactuals.models.judges import optional

PART = 4096
SPLITS = 10
SIZES, SMALLEST, LEAST = 15, 0.25, 8
OFFSET = 1e-6  # of a covariance whose product with the other has no root


@dataclass(frozen=True, eq=False)
class Gaussian:
    """mean: (D,); root: (R, D) with root.T @ root the covariance, so that a singular one needs no care. float64."""

    mean: np.ndarray
    root: np.ndarray


def fit(features: np.ndarray) -> Gaussian:
    """(N, D), N >= 2 -> the Gaussian of their mean and unbiased covariance."""
    mean, scale = features.mean(0, dtype=np.float64), np.sqrt(len(features) - 1)
    root = np.zeros((0, len(mean)))
    for part in parts(features):
        root = np.concatenate([root, (part - mean) / scale])
        if len(root) > len(mean):
            root = np.linalg.qr(root, mode="r")
    return Gaussian(mean, root)


def parts(features: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in float64, a part at a time: a copy of them all would take more memory than the features."""
    for start in range(0, len(features), PART):
        yield np.asarray(features[start : start + PART], np.float64)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared 2-Wasserstein distance of two Gaussians; >= 0, lower is closer, symmetric.

    tr sqrt(A B) is the sum of the singular values of root_a root_b^T: nothing is squared that is rooted again.
    """
    shared = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + (a.root**2).sum() + (b.root**2).sum() - 2 * shared
    return max(float(distance), 0.0)


def fid(originals: np.ndarray, counterfactuals: np.ndarray) -> float:
    """(N, D) and (M, D) features, N and M >= 2 -> FID to the digits of pytorch-fid, whose arithmetic this is: its own
    function does not work with SciPy 1.18.

    Of fewer pictures than features, its square root of a singular matrix is off by up to 1e-4 of the figure;
    ``frechet_distance`` is not, but published figures are.
    """
    linalg = optional("scipy.linalg", "FID")
    (mean, sigma), (other_mean, other_sigma) = map(moments, (originals, counterfactuals))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # that a matrix is singular, which older versions print
        root = linalg.sqrtm(sigma @ other_sigma)
        if not np.isfinite(root).all():
            offset = OFFSET * np.eye(len(mean))
            root = linalg.sqrtm((sigma + offset) @ (other_sigma + offset))
    return float(((mean - other_mean) ** 2).sum() + np.trace(sigma) + np.trace(other_sigma) - 2 * np.trace(root).real)


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance in float64, as ``np.cov`` gives it."""
    mean = features.mean(0, dtype=np.float64)
    squares = sum((part - mean).T @ (part - mean) for part in parts(features))
    return mean, squares / (len(features) - 1)


@dataclass(frozen=True, eq=False)
class Sides:
    """originals: (N, D) and counterfactuals: (M, D), features with the names of their pictures."""

    originals: np.ndarray
    original_names: Sequence[str]
    counterfactuals: np.ndarray
    names: Sequence[str]

    def of(self, chosen: set[str]) -> tuple[np.ndarray, np.ndarray]:
        """Originals and counterfactuals of the chosen names."""
        originals, changed = ([name in chosen for name in names] for names in (self.original_names, self.names))
        return self.originals[originals], self.counterfactuals[changed]


def distance(features: np.ndarray, others: np.ndarray) -> float:
    """(N, D) and (M, D), N and M >= 2 -> their Frechet distance."""
    return frechet_distance(fit(features), fit(others))


def split_names(names: Sequence[str], seed: int) -> tuple[set[str], set[str]]:
    """Two halves of the names at random, the first the smaller by one where their number is odd."""
    shuffled = np.random.default_rng(np.random.SeedSequence([seed])).permutation(sorted(names)).tolist()
    return set(shuffled[: len(names) // 2]), set(shuffled[len(names) // 2 :])


def split_distances(sides: Sides, seed: int, splits: int = SPLITS) -> tuple[np.ndarray, np.ndarray]:
    """(2 splits,) twice: within each half of the seeded splits, and from originals of one half to counterfactuals of
    the other, whose mean is sFID; NaN where a half has fewer than 2 pictures.

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
        values.append(distance(*sides.of(set(np.concatenate(drawn).tolist()))))
    line = np.stack([np.ones(len(inverse)), inverse], 1)
    (height, slope), *_ = np.linalg.lstsq(line, values, rcond=None)
    residuals = np.array(values) - line @ (height, slope)
    scale = (residuals**2).sum() / (len(values) - 2)
    return float(height), float(np.sqrt(scale * np.linalg.inv(line.T @ line)[0, 0]))
