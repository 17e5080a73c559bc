"""Counterfactual Transition, COUT (Khorram and Fuxin 2022): do few pixels carry the change of the decision?

Population: CC, CCF+ICF.  The most changed pixels are put into the original first, and the classifier is asked after
every fiftieth part of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ace_counterfactuals.core.method.objectives import predict, probabilities

PARTS = 50


def step_size(pixels: int) -> int:
    """How many pixels are inserted at once."""
    return max(1, pixels // PARTS)


def insertion_ranks(image: Tensor, counterfactual: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] twice -> (N, H, W) int64: the place of every pixel, the most changed first.

    Equal changes keep the order of the pixels. Computed as published, in float32, whose rounding orders some of the
    many ties of 8-bit pictures: exact sums would move the figure away from them.
    """
    change = (image - counterfactual).abs().sum(1).flatten(1)
    low, high = change.amin(1, keepdim=True), change.amax(1, keepdim=True)
    normalised = (change - low) / torch.where(high > low, high - low, torch.ones_like(low))
    order = normalised.argsort(dim=1, descending=True, stable=True)
    return order.argsort(1).view(len(image), *image.shape[2:])


def binary_pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) logits of originals -> source and target, (N,) each: the prediction, and the other answer."""
    source = predict(logits).long()
    return source, 1 - source


@torch.no_grad()
def insertion_scores(
    classifier: Callable[[Tensor], Tensor], image: Tensor, counterfactual: Tensor, source: Tensor, target: Tensor
) -> Tensor:
    """Target's minus source's probability after every step, from the original to the counterfactual.

    image, counterfactual: (N, 3, H, W); source, target: (N,) -> (N, steps + 1) float64 in [-1, 1].
    """
    ranks = insertion_ranks(image, counterfactual)[:, None]
    pixels = ranks[0].numel()
    step, scores = step_size(pixels), []
    for inserted in [*range(0, pixels, step), pixels]:
        mixed = torch.where(ranks < inserted, counterfactual, image)
        probability = probabilities(classifier(mixed)).cpu().double()  # in this order: MPS has no float64
        difference = probability.gather(1, target.cpu()[:, None]) - probability.gather(1, source.cpu()[:, None])
        scores.append(difference[:, 0])
    return torch.stack(scores, 1)


def areas(scores: Tensor, pixels: int) -> Tensor:
    """(N, steps + 1) scores -> (N,) areas under them; the mean is COUT, about -1 to 1, higher is better.

    As published: every trapezoid is step / HW wide, also the last, shorter step's, so that the total width,
    ``total_width``, is up to 2 % above 1.
    """
    return (scores[:, 1:] + scores[:, :-1]).sum(1) / 2 * step_size(pixels) / pixels


def total_width(pixels: int) -> float:
    """Divided by it, COUT lies in [-1, 1]: ``cout_normalised``."""
    step = step_size(pixels)
    return -(-pixels // step) * step / pixels


@torch.no_grad()
def pair_areas(
    classifier: Callable[[Tensor], Tensor], image: Tensor, counterfactual: Tensor, query: int, target: int
) -> Tensor:
    """(N,) areas of a batch of pairs, on the CPU: from ``query`` to ``target``, or between a binary one's answers."""
    logits, pixels = classifier(image), image[0, 0].numel()
    classes = (torch.full((len(image),), label, device=image.device) for label in (query, target))
    source, goal = binary_pair(logits) if logits.ndim == 1 else classes
    return areas(insertion_scores(classifier, image, counterfactual, source, goal), pixels)
