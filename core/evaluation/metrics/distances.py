"""How far the counterfactual is from the original, pixel by pixel, of values in [0, 1]; `main.py` writes l1 and l∞ to
its summary and `results.csv`.

l1 and l∞ are between 0 and 1, l2 at least 0; lower is closer. l1 and l2 favour faint changes everywhere over a clear
one in one place.
"""

import torch
from torch import Tensor

from ace_counterfactuals.core.evaluation.judges import Judge, Network
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, SHARE, Metric, Quantity, Question, register
from ace_counterfactuals.core.evaluation.pictures import EVERY


def l1(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """(N, 3, H, W) twice -> (N,) float64, as below: mean absolute change of a value, in [0, 1]."""
    return _changes(originals, counterfactuals).abs().mean(1)


def l2(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """Euclidean length of the change, in [0, sqrt(3 H W)]."""
    return _changes(originals, counterfactuals).norm(dim=1)


def l_inf(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """Largest absolute change of a value, in [0, 1]."""
    return _changes(originals, counterfactuals).abs().amax(1)


def _changes(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    return (originals.double() - counterfactuals.double()).flatten(1)


def ask(_, __, *pair: Tensor) -> Tensor:
    """(N, 3): the three distances, on the CPU, since MPS has no float64."""
    return torch.stack([measure(*(side.cpu() for side in pair)) for measure in (l1, l2, l_inf)], 1)


QUANTITIES = (
    Quantity("l1", "l1", LOWER, SHARE, "Mean absolute change of a value in [0, 1]."),
    Quantity("l2", "l2", LOWER, LENGTH, "Euclidean length of the change."),
    Quantity("l_inf", "l∞", LOWER, SHARE, "Largest absolute change of a value in [0, 1]."),
)
PIXELS = Judge("pixels", lambda *_: {"": Network(lambda: None)})
ASKED = {"asked": "pair", "question": Question(ask), "measure": lambda measured: measured.T}
METRIC = register(Metric("distances", 61, QUANTITIES, __doc__, EVERY, PIXELS, **ASKED))
