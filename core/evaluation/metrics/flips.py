"""The share of all pictures whose counterfactual reaches its target (`cf` in the summary).

Between 0 and 1; higher is better. A flip rate of the explained classifier shows nothing of whether a person would
agree.
"""

from collections.abc import Sequence

import numpy as np

from ace_counterfactuals.core.evaluation.metric import HIGHER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import FLIPPED
from ace_counterfactuals.core.evaluation.session import Subject
from ace_counterfactuals.core.runs.experiment import Pair


def measure(_: Subject, pairs: Sequence[Pair]) -> tuple[np.ndarray]:
    """(N,) bool: whether each pair lies in CCF, prediction == target."""
    return (np.array([pair.folder in FLIPPED.folders for pair in pairs]),)


MEANING = "Share of pictures whose counterfactual reaches its target."
FLIP_RATE = Quantity("flip_rate", "FR", HIGHER, SHARE, MEANING, share=True)
register(Metric("flips", 60, (FLIP_RATE,), __doc__, measure=measure))
