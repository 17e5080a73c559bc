"""What unseen classifiers say of each photograph's counterfactual, and two ways compared photograph by photograph.

A classifier's verdicts on N photographs are a string of N letters: ``y`` it sees the target, too; ``n`` it does not;
``.`` the attacked classifier was not flipped; ``?`` it took the original for another class than the attacked one did,
and is not asked.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ace_counterfactuals.core.evaluation.metrics.transfer import Verdicts

ASKED = {"of flips": "yn", "of all photographs": "yn."}


def letters(alike: Tensor, verdicts: Verdicts) -> str:
    """alike: (N,) bool, whether the classifier took the original for what the attacked one did."""
    said = np.where(verdicts.counted, np.where(verdicts.reached, "y", "n"), ".")
    return "".join(np.where(alike.cpu(), said, "?"))


def of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What the classifiers say that are not earlier ones, in rows of ``Bench.measure``."""
    return [row[name] for row in rows for name in row if name.startswith("said ") and " " not in name[5:]]


def counts(said: Sequence[str], asked: str) -> np.ndarray:
    """(N, 2): how many of several verdicts on each photograph are ``y``, and of how many ``asked`` ones."""
    table = np.array([list(one) for one in said])
    return np.stack([(table == "y").sum(0), np.isin(table, list(asked)).sum(0)], axis=1)


def difference(
    a: Sequence[str], b: Sequence[str], asked: str, *, seed: int = 0, draws: int = 10_000
) -> tuple[float, float, float]:
    """Transfer of ``a`` less that of ``b``, and its 95 % interval: photographs are drawn again (bootstrap), each with
    all verdicts on it, of any classifier and seed."""
    a, b = counts(a, asked), counts(b, asked)
    chosen = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))

    def transfer(of: np.ndarray) -> np.ndarray:
        reached, wanted = np.moveaxis(of, -1, 0)
        return reached / np.maximum(wanted, 1)

    drawn = transfer(a[chosen].sum(1)) - transfer(b[chosen].sum(1))
    whole = transfer(a.sum(0)) - transfer(b.sum(0))
    return float(whole), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))
