"""The share of all pictures whose counterfactual reaches its target (`cf` in the summary).

Between 0 and 1; higher is better. A flip rate of the explained classifier shows nothing of whether a person would
agree.
"""

from collections.abc import Sequence

import numpy as np

from ace_counterfactuals.core.evaluation.metric import HIGHER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.runs.experiment import Pair


def flipped(pairs: Sequence[Pair]) -> np.ndarray:
    """(N,) bool: whether each pair lies in CCF, prediction == target."""
    return np.array([pair.folder.endswith("/CCF") for pair in pairs], bool)


MEANING = "Share of pictures whose counterfactual reaches its target."
FLIP_RATE = Quantity("flip_rate", "FR", HIGHER, SHARE, MEANING, share=True)
METRIC = register(Metric("flips", 60, (FLIP_RATE,), __doc__, measure=lambda _, pairs: (flipped(pairs),)))
