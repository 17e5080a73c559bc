"""Flip rate (FR, ``cf`` in the summary): does the counterfactual reach its target?  Population: all pictures."""

from collections.abc import Sequence

import numpy as np

from ace_counterfactuals.core.runs.experiment import Pair


def flipped(pairs: Sequence[Pair]) -> np.ndarray:
    """(N,) bool: whether each pair lies in CCF, prediction == target."""
    return np.array([pair.folder.endswith("/CCF") for pair in pairs], bool)


def flip_rate(pairs: Sequence[Pair]) -> float:
    """Share of the pairs, one or more, that flipped. In [0, 1], higher is better."""
    return float(flipped(pairs).mean())
