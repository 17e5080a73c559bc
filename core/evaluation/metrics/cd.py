"""Correlation Difference (Jeanneret et al. 2022): do attributes change together as they occur together?

Population: CC+IC, CCF.  Features: an oracle's decisions (N, A) on originals and counterfactuals.
"""

import numpy as np


def correlations(values: np.ndarray, query: int) -> np.ndarray:
    """(N, A) -> (A,) in [-1, 1]: Pearson correlation of every column with column ``query``, 0 where undefined."""
    values = values.astype(np.float64)
    centred = values - values.mean(0)
    centred[:, np.ptp(values, axis=0) == 0] = 0  # the mean of a constant column is off by rounding
    lengths = np.linalg.norm(centred, axis=0)
    products, scale = centred.T @ centred[:, query], lengths * lengths[query]
    return np.divide(products, scale, out=np.zeros(values.shape[1]), where=scale > 0).clip(-1, 1)


def correlation_difference(
    originals: np.ndarray, counterfactuals: np.ndarray, training: np.ndarray, query: int
) -> float:
    """Sum over attributes of |corr(delta_i, delta_query) - corr_train(i, query)|, in [0, 2 A]; lower is better.

    originals, counterfactuals: (N, A) decisions, N >= 1.  training: (A,) ``correlations`` of the annotations.
    """
    delta = counterfactuals.astype(np.float64) - originals.astype(np.float64)
    return float(np.abs(correlations(delta, query) - training).sum())
