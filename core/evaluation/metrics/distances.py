"""How far the counterfactual is from the original, pixel by pixel, of values in [0, 1]; `main.py` writes l1 and l∞ to
its summary and `results.csv`.

l1 and l∞ are between 0 and 1, l2 at least 0; lower is closer. l1 and l2 favour faint changes everywhere over a clear
one in one place.
"""

import torch
from torch import Tensor

from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import EVERY
from ace_counterfactuals.core.evaluation.session import Judge, Network


def distances(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] twice -> (N, 3) float64, l1, l2 and l∞: mean, length and maximum of the change.

    On the CPU, since MPS has no float64.
    """
    change = (originals.cpu().double() - counterfactuals.cpu().double()).flatten(1)
    return torch.stack([change.abs().mean(1), change.norm(dim=1), change.abs().amax(1)], 1)


QUANTITIES = (
    Quantity("l1", "l1", LOWER, SHARE, "Mean absolute change of a value in [0, 1]."),
    Quantity("l2", "l2", LOWER, LENGTH, "Euclidean length of the change."),
    Quantity("l_inf", "l∞", LOWER, SHARE, "Largest absolute change of a value in [0, 1]."),
)
PIXELS = Judge("distances", lambda *_: {"": Network(lambda: distances)}, dtype="<f8")
register(Metric("distances", 61, QUANTITIES, __doc__, EVERY, PIXELS, asked="pair", measure=lambda found: found.T))
