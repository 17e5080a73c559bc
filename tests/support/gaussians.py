"""Gaussians from their covariance, of which the Frechet distance is known."""

import inspect
from types import ModuleType

import numpy as np
import pytest

from ace_counterfactuals.core.evaluation.gaussians import Gaussian


def from_covariance(mean, covariance) -> Gaussian:
    """(D,) and (D, D), symmetric; eigenvalues that are zero up to rounding are zero."""
    values, vectors = np.linalg.eigh(covariance)
    smallest = values.max(initial=0) * len(values) * np.finfo(np.float64).eps
    return Gaussian(np.asarray(mean, np.float64), np.sqrt(np.where(values > smallest, values, 0))[:, None] * vectors.T)


def pytorch_fids() -> ModuleType:
    """Its arithmetic, where this SciPy still has the argument that it gives."""
    if "disp" not in inspect.signature(pytest.importorskip("scipy.linalg").sqrtm).parameters:
        pytest.skip("pytorch-fid does not work with this SciPy")
    return pytest.importorskip("pytorch_fid.fid_score")
