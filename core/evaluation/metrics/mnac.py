"""Mean Number of Attributes Changed (Rodriguez et al. 2021): how much else of the face changes?

Population: CC+IC, CCF.  Features: an attribute oracle's probabilities (N, A), of A = 40 attributes.
"""

import numpy as np
from torch import Tensor

THRESHOLD = 0.5


def decisions(probabilities: Tensor) -> np.ndarray:
    """(N, A) in [0, 1] -> (N, A) bool: an attribute is there if its probability is above 0.5, strictly."""
    return (probabilities > THRESHOLD).numpy()


def changes(originals: np.ndarray, counterfactuals: np.ndarray) -> np.ndarray:
    """(N, A) bool twice -> (N,): how many attributes are decided otherwise, in [0, A].

    The mean is MNAC; lower is better, 1 is the least where the oracle has the explained attribute and agrees.
    """
    return (originals != counterfactuals).sum(1)
