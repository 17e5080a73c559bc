"""Frechet Inception Distance (Heusel et al. 2017): do the counterfactuals look like real pictures?

Population: counterfactuals of CC+IC, CCF, against all originals.  Features: pytorch-fid's Inception (N, 2048).
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PART = 4096


@dataclass(frozen=True, eq=False)
class Gaussian:
    """mean: (D,); root: (R, D) with root.T @ root the covariance, so that a singular one needs no care. float64."""

    mean: np.ndarray
    root: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        return self.root.T @ self.root


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


def from_covariance(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    """(D,) and (D, D), symmetric; eigenvalues that are zero up to rounding are zero."""
    values, vectors = np.linalg.eigh(covariance)
    smallest = values.max(initial=0) * len(values) * np.finfo(np.float64).eps
    return Gaussian(np.asarray(mean, np.float64), np.sqrt(np.where(values > smallest, values, 0))[:, None] * vectors.T)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared 2-Wasserstein distance of two Gaussians; >= 0, lower is closer, symmetric.

    tr sqrt(A B) is the sum of the singular values of root_a root_b^T: nothing is squared that is rooted again.
    """
    shared = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + (a.root**2).sum() + (b.root**2).sum() - 2 * shared
    return max(float(distance), 0.0)


def fid(originals: np.ndarray, counterfactuals: np.ndarray) -> float:
    """(N, D) and (M, D) features, N and M >= 2 -> FID to the digits of pytorch-fid, whose arithmetic is used.

    Of fewer pictures than features, its square root of a singular matrix is off by up to 1e-4 of the figure;
    ``frechet_distance`` is not, but published figures are.
    """
    from pytorch_fid.fid_score import calculate_frechet_distance

    (mean_1, sigma_1), (mean_2, sigma_2) = map(moments, (originals, counterfactuals))
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.filterwarnings("ignore", ".*`?disp`?.*", DeprecationWarning)  # an argument that scipy retires
        warnings.filterwarnings("ignore", ".*singular.*")  # pytorch-fid looks for it itself
        return float(calculate_frechet_distance(mean_1, sigma_1, mean_2, sigma_2))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance in float64, as ``np.cov`` gives it."""
    mean = features.mean(0, dtype=np.float64)
    squares = sum((part - mean).T @ (part - mean) for part in parts(features))
    return mean, squares / (len(features) - 1)
