"""Flip rate (FR, ``cf`` in the summary): does the counterfactual reach its target?  Population: all pictures."""

from collections.abc import Sequence

from core.results import Pair


def flip_rate(pairs: Sequence[Pair]) -> float:
    """Share of the pairs, one or more, that lie in CCF: prediction == target. In [0, 1], higher is better."""
    return sum(pair.folder.endswith("/CCF") for pair in pairs) / len(pairs)
