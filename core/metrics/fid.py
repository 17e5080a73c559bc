"""Frechet Inception Distance (Heusel et al. 2017): do the counterfactuals look like real pictures?

Population: counterfactuals of CC+IC, CCF, against all originals.  Features: pytorch-fid's Inception (N, 2048).
"""

import contextlib
import sys
import warnings
from dataclasses import dataclass

import numpy as np


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
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    root = (features - mean) / np.sqrt(len(features) - 1)
    return Gaussian(mean, np.linalg.qr(root, mode="r") if len(root) > root.shape[1] else root)


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

    sides = [np.asarray(side, np.float64) for side in (originals, counterfactuals)]
    (mean_1, sigma_1), (mean_2, sigma_2) = ((side.mean(0), np.cov(side, rowvar=False)) for side in sides)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.filterwarnings("ignore", ".*`?disp`?.*", DeprecationWarning)  # an argument that scipy retires
        warnings.filterwarnings("ignore", ".*singular.*")  # pytorch-fid looks for it itself
        return float(calculate_frechet_distance(mean_1, sigma_1, mean_2, sigma_2))
