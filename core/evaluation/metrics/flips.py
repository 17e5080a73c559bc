"""The share of all pictures whose counterfactual reaches its target (`cf` in the summary).

Between 0 and 1; higher is better. A flip rate of the explained classifier shows nothing of whether a person would
agree. A flip to less than 60 % is weak; a note says how many are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ace_counterfactuals.core.evaluation.metric import HIGHER, SHARE, Metric, Quantity, means, register
from ace_counterfactuals.core.evaluation.model import FLIPPED, Figure
from ace_counterfactuals.core.evaluation.session import Subject
from ace_counterfactuals.core.runs.experiment import Pair
from ace_counterfactuals.core.runs.records import WEAK


def measure(_: Subject, pairs: Sequence[Pair]) -> tuple[np.ndarray]:
    """(N,) bool: whether each pair lies in CCF, prediction == target."""
    return (np.array([pair.folder in FLIPPED.folders for pair in pairs]),)


def figures(metric: Metric, subject: Subject) -> Iterator[Figure]:
    """The rate, with a note of how many flips are weak, as far as records tell."""
    stored = subject.stored
    flips = [pair.name for pair in subject.of(FLIPPED)]
    weak = sum(name in stored.records and stored.records[name].outcomes[stored.kind].weak for name in flips)
    for figure in means(metric, subject):
        note = f"weak flips, to under {WEAK:.0%}: {weak} of {len(flips)}"
        yield replace(figure, notes=(*figure.notes, note)) if weak else figure


MEANING = "Share of pictures whose counterfactual reaches its target."
FLIP_RATE = Quantity("flip_rate", "FR", HIGHER, SHARE, MEANING, share=True)
register(Metric("flips", 60, (FLIP_RATE,), __doc__, measure=measure, figures=figures))
