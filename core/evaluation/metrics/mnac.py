"""The mean number of a face's 40 attributes on which an oracle decides otherwise after the change (Rodriguez et al.
2021).

    python compute_MNAC.py --output-path OUT --exp-name exp/explanation --oracle-path oracle.pth --dataset CelebA

Between 0 and 40; lower is better, and about 1 is ideal: the explained attribute itself. It does not tell attributes
that belong together (smile and high cheekbones) from side effects, and an oracle can be fooled as the classifier is.
The second line that the command prints is the standard deviation over the pictures.
"""

import numpy as np

from ace_counterfactuals.core.evaluation.judges import ORACLE
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import FLIPPED

THRESHOLD = 0.5


def decisions(probabilities: np.ndarray) -> np.ndarray:
    """(N, A) in [0, 1] -> (N, A) bool: an attribute is there if its probability is above 0.5, strictly."""
    return probabilities > THRESHOLD


def changes(originals: np.ndarray, counterfactuals: np.ndarray) -> np.ndarray:
    """(N, A) probabilities twice -> (N,): how many attributes are decided otherwise, in [0, A]."""
    return (decisions(originals) != decisions(counterfactuals)).sum(1)


MEANING = "Mean number of a face's attributes that an oracle decides otherwise."
MNAC = Quantity("mnac", "MNAC", LOWER, LENGTH, MEANING)
register(Metric("mnac", 30, (MNAC,), __doc__, FLIPPED, ORACLE, measure=lambda *sides: (changes(*sides),)))
