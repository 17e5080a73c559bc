"""How well a classifier does on pictures that it was not trained on: by class or attribute, and whether it knows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ace_counterfactuals.core.training.feeding import Feed, to_input

BINS = 15  # of the confidence (Guo et al. 2017)


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in one of BINS equal parts of [0, 1]: how many, and their means."""

    answers: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """accuracy: the share of right answers, over all attributes where these are asked for.

    counts: of classes (K, K), label by prediction; of attributes (A, 4), yes as yes, yes as no, no as yes, no as no.
    ece: the expected calibration error over the ``bins``: by how much confidence and accuracy differ, weighted by the
    answers; in [0, 1], 0 is best.
    """

    names: tuple[str, ...]
    attributes: bool
    pictures: int
    accuracy: float
    counts: list[list[int]]
    ece: float
    bins: list[Bin]

    @property
    def rows(self) -> list[dict]:
        """By class or attribute: its name, pictures of it or pictures that have it, right answers, and their share."""
        table = np.array(self.counts)
        of = table[:, :2].sum(1) if self.attributes else table.sum(1)
        right = table[:, [0, 3]].sum(1) if self.attributes else table.diagonal()
        asked = np.full(len(of), self.pictures) if self.attributes else of
        return [
            {
                "name": name,
                "pictures": int(of[i]),
                "right": int(right[i]),
                "accuracy": float(right[i] / max(asked[i], 1)),
            }
            for i, name in enumerate(self.names)
        ]


@torch.no_grad()
def measured(network: nn.Module, pictures: Feed, names: tuple[str, ...], device: torch.device, size: int) -> Measured:
    """On all of the pictures, ``size`` at a time; the network stays in the mode that it is in."""
    mode = network.training
    network.eval()
    answers = [(network(to_input(part, device)).float().cpu(), labels) for part, labels in pictures.in_order(size)]
    network.train(mode)
    logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))
    return judged(logits, labels, names)


def judged(logits: Tensor, labels: Tensor, names: tuple[str, ...]) -> Measured:
    """Of answers (N, outputs) to labels (N,) of classes, or (N, outputs) of attributes."""
    attributes, outputs = labels.ndim == 2, len(names)
    if attributes:
        decided, truth = logits > 0, labels > 0.5
        right, sure = decided == truth, torch.sigmoid(logits.double().abs())
        kinds = (truth & decided, truth & ~decided, ~truth & decided, ~truth & ~decided)
        counts = torch.stack([kind.sum(0) for kind in kinds], 1)
    else:
        chosen = logits.argmax(1)
        right, sure = chosen == labels, logits.double().softmax(1).amax(1)
        counts = torch.bincount(labels * outputs + chosen, minlength=outputs**2).view(outputs, outputs)
    bins = calibration(sure.flatten().numpy(), right.flatten().numpy())
    total = sum(one.answers for one in bins)
    return Measured(
        names=names,
        attributes=attributes,
        pictures=len(labels),
        accuracy=right.double().mean().item(),
        counts=counts.tolist(),
        ece=sum(one.answers * abs(one.confidence - one.accuracy) for one in bins) / total,
        bins=bins,
    )


def calibration(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    """The reliability diagram of answers (N,); a part without answers has accuracy and confidence 0."""
    part = np.minimum((confidence * BINS).astype(int), BINS - 1)
    number = np.bincount(part, minlength=BINS)
    means = [np.bincount(part, values, BINS) / np.maximum(number, 1) for values in (confidence, right)]
    return [Bin(int(n), float(sure), float(good)) for n, sure, good in zip(number, *means, strict=True)]
