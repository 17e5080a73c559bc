"""How many of the counterfactuals that convince the attacked classifier convince another one, which was never attacked,
of the pictures whose original both classify alike? Adversarial noise is made for one classifier; a change of meaning is
seen by others, too. Beside it: how far their probability of the target rose.

    python compute_transfer.py --output-path OUT --exp-name exp/explanation --classifier a.pt b.pt

Between 0 and 1; higher is better, and the accuracy of the unseen classifier bounds it. Classes are matched by name. The
data set comes from the experiment's `config.yaml`; for folders of the original program give `--dataset`, and
`--query-label` on a binary set. Of an untargeted run the target is what the attacked classifier was moved to. `pooled`
is over all verdicts, its interval on the number of pictures, since two verdicts on one picture are not independent. It
shows less where the unseen classifiers resemble the attacked one: the same architecture, training pictures or shortcut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.evaluation import intervals
from ace_counterfactuals.core.evaluation import metric as base
from ace_counterfactuals.core.evaluation.judges import UNSEEN
from ace_counterfactuals.core.evaluation.metric import COSINE, HIGHER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import FLIPPED, Figure
from ace_counterfactuals.core.evaluation.session import Subject
from ace_counterfactuals.core.method.objectives import predict, probabilities


class Verdicts(NamedTuple):
    """What an unseen classifier says of N counterfactuals, on the CPU.

    counted: (N,) bool, those that transfer is asked of.  reached: (N,) bool, it sees the target, too.
    movement: (N,) float64 in [-1, 1], how far its probability of the target rose.
    """

    counted: Tensor
    reached: Tensor
    movement: Tensor


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

    share: float | None = None
    low: float | None = None
    high: float | None = None
    movement: float | None = None
    n: int = 0
    pictures: int = 0


def transfer(verdicts: Sequence[Verdicts]) -> Transfer:
    """Of one unseen classifier, or pooled over several that judged the same pictures.

    The interval is Wilson's, on the number of pictures: verdicts on one picture are not independent.
    """
    if not any(of_one.counted.any() for of_one in verdicts):
        return Transfer()
    counted, reached, movement = map(torch.stack, zip(*verdicts, strict=True))
    n, pictures = int(counted.sum()), int(counted.any(0).sum())
    share = reached[counted].double().mean().item()
    interval = intervals.wilson(share * pictures, pictures)
    return Transfer(share, *interval, movement[counted].mean().item(), n, pictures)


def verdicts(metric: Metric, subject: Subject) -> dict[str, Verdicts]:
    """Of each unseen classifier, by its file.  Raises FlagError for one that lacks a class of the experiment."""
    pairs, found = subject.of(FLIPPED), {}
    seen = torch.tensor([subject.decisions(pair) for pair in pairs], dtype=torch.long).view(-1, 3).T
    for file in subject.tasks.get(metric.judge, {}):
        sides = metric.features(subject, pairs, file) if pairs else [np.zeros((0, 1))] * 2
        if pairs and (largest := int(seen.max())) >= sides[0].shape[1]:
            reason = f"{file}: has {sides[0].shape[1]} classes, but the experiment knows a class {largest}"
            raise FlagError("unseen", reason)
        found[file] = judge(*seen, *map(torch.from_numpy, sides))
    return found


def figures(metric: Metric, subject: Subject) -> Iterator[Figure]:
    """Of each unseen classifier, and pooled over several."""
    pairs, found = subject.of(FLIPPED), verdicts(metric, subject)
    for file, own in found.items():
        name, counted = Path(file).name, own.counted
        yield share_of([own], name)
        asked = [pair for pair, counts in zip(pairs, counted.tolist(), strict=True) if counts]
        subject.keep(TRANSFER.key_of(name), asked, own.reached[counted])
        moved = own.movement[counted].numpy()
        bounds = intervals.mean_interval(moved, subject.session.seed)
        yield MOVEMENT.figure(transfer([own]).movement, bounds, interval=base.MEAN, **about(name, len(asked)))
    if len(found) > 1:
        yield share_of(list(found.values()), "pooled")


def share_of(several: Sequence[Verdicts], name: str) -> Figure:
    found = transfer(several)
    return TRANSFER.figure(found.share, (found.low, found.high), interval=base.WILSON, **about(name, found.n))


def about(name: str, n: int) -> dict:
    return {"network": name, "population": f"{FLIPPED.name}, originals classified alike", "n": n}


MEANING = "Share of flipped pictures that an unseen classifier flips, too."
TRANSFER = Quantity("transfer", "transfer ({})", HIGHER, SHARE, MEANING)
RISE = "Mean rise of an unseen classifier's target probability."
MOVEMENT = Quantity("movement", "target's rise ({})", HIGHER, COSINE, RISE)
HOOKS = {"figures": figures, "differences": base.none}
register(Metric("transfer", 70, (TRANSFER, MOVEMENT), __doc__, FLIPPED, UNSEEN, **HOOKS))
