"""Transfer: does a counterfactual convince a classifier that was never attacked?

Population: CC+IC, CCF, of which those whose original is classified alike by the attacked classifier and the unseen one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ace_counterfactuals.core.evaluation.metrics.intervals import wilson
from ace_counterfactuals.core.method.objectives import predict, probabilities


@dataclass(frozen=True)
class Verdicts:
    """What an unseen classifier says of N counterfactuals, on the CPU.

    counted: (N,) bool, those that transfer is asked of.  reached: (N,) bool, it sees the target, too.
    movement: (N,) float64 in [-1, 1], how far its probability of the target rose.
    """

    counted: Tensor
    reached: Tensor
    movement: Tensor


NO_VERDICTS = Verdicts(torch.zeros(0).bool(), torch.zeros(0).bool(), torch.zeros(0).double())


def judge(prediction: Tensor, cf_prediction: Tensor, target: Tensor, logits: Tensor, cf_logits: Tensor) -> Verdicts:
    """Compare an unseen classifier with the attacked one.

    prediction, cf_prediction: (N,) int64, the attacked classifier on originals and counterfactuals.
    target: (N,) int64, -1 where it was free: then it is what the attacked classifier was moved to.
    logits, cf_logits: the unseen classifier's, (N, K), or (N,) if binary, with the attacked one's numbers of classes.
    A picture that had its target from the start, or did not reach it, does not count.
    """
    goal = torch.where(target >= 0, target, cf_prediction).cpu()
    before, after = (probabilities(x).cpu().double() for x in (logits, cf_logits))
    alike = predict(logits).cpu() == prediction.cpu()
    place = goal[:, None]
    return Verdicts(
        counted=alike & (cf_prediction.cpu() == goal) & (prediction.cpu() != goal),
        reached=predict(cf_logits).cpu() == goal,
        movement=(after.gather(1, place) - before.gather(1, place))[:, 0],
    )


@dataclass(frozen=True)
class Transfer:
    """share: of the ``n`` verdicts that reached the target, in [0, 1], higher is better, with its 95 % interval.
    movement: mean rise of the target's probability.  pictures: that the verdicts are on.  None where n is 0."""

    share: float | None
    low: float | None
    high: float | None
    movement: float | None
    n: int
    pictures: int

    def to_dict(self) -> dict:
        return asdict(self)


def transfer(verdicts: Sequence[Verdicts]) -> Transfer:
    """Of one unseen classifier, or pooled over several that judged the same pictures.

    The interval is Wilson's, on the number of pictures: verdicts on one picture are not independent.
    """
    counted = torch.stack([v.counted for v in verdicts])
    n, pictures = int(counted.sum()), int(counted.any(0).sum())
    if n == 0:
        return Transfer(None, None, None, None, 0, 0)
    share = torch.stack([v.reached for v in verdicts])[counted].double().mean().item()
    movement = torch.stack([v.movement for v in verdicts])[counted].mean().item()
    return Transfer(share, *wilson(share * pictures, pictures), movement, n, pictures)
