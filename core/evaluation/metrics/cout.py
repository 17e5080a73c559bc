"""Pixels go from the counterfactual into the original, the most changed first, in 50 steps: the area under the target's
probability minus that under the source's (Khorram and Fuxin 2022). It asks whether few pixels carry the decision.

    python compute_COUT.py --output-path OUT --exp-name exp/explanation --weights-path classifier.pth \\
        --dataset CelebA --query-label 31
    python compute_COUT.py ... --dataset ImageNet --query-label 293 --target-label 286

Between -1 and 1; higher is better. The first line is comparable with the papers, whose total width is up to 2 % above
1; the second is divided by it. Mixed pictures are unlike any that the classifier was trained on, and 0 is also what a
method gets that flips half of its pictures at once and the others never. Ties between pixels are broken by their place;
breaking them otherwise moves the figure by up to 0.002.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation.judges import explained
from ace_counterfactuals.core.evaluation.metric import COSINE, HIGHER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import CORRECT
from ace_counterfactuals.core.evaluation.session import Judge, Network, Session, Subject, Unavailable
from ace_counterfactuals.core.method.objectives import predict, probabilities
from ace_counterfactuals.models.classifiers import Classifier

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
    """(N, steps + 1) scores -> (N,) areas under them; the mean is COUT.

    As published: every trapezoid is step / HW wide, also the last, shorter step's, so that the total width,
    ``total_width``, is up to 2 % above 1.
    """
    return (scores[:, 1:] + scores[:, :-1]).sum(1) / 2 * step_size(pixels) / pixels


def total_width(pixels: int) -> float:
    """Divided by it, COUT lies in [-1, 1]: ``cout_normalised``."""
    step = step_size(pixels)
    return -(-pixels // step) * step / pixels


def open_insertion(session: Session, subject: Subject) -> dict[str, Network]:
    """The explained classifier, asked for area and total width; of more classes than two also the target decides."""
    network, ends = explained(session, subject), {"query": subject.query, "target": subject.target}
    what = network.what
    if not spec_of(subject.dataset).binary:
        for name, label in ends.items():
            if label < 0:
                raise Unavailable(f"{name}_label", f"it goes from one class to another, and the run had no {name}")
        what = {**what, "target": subject.target}

    def load() -> Callable[[Tensor, Tensor], Tensor]:
        classifier = network.load()
        for name, label in ends.items():
            if not classifier.binary and not 0 <= label < classifier.num_outputs:
                reason = f"{label}: wanted a class of the classifier, 0 to {classifier.num_outputs - 1}"
                raise FlagError(f"{name}_label", reason)
        return partial(areas_and_widths, classifier, **ends)

    return {"": replace(network, load=load, what=what)}


def areas_and_widths(
    classifier: Classifier, image: Tensor, counterfactual: Tensor, *, query: int, target: int
) -> Tensor:
    """(N, 2) float64, from query to target; of a binary classifier, from the prediction to the other answer."""
    source, goal = (torch.full((len(image),), label, device=image.device) for label in (query, target))
    if classifier.binary:
        source = predict(classifier(image)).long()
        goal = 1 - source
    pixels = image[0, 0].numel()
    found = areas(insertion_scores(classifier, image, counterfactual, source, goal), pixels)
    return torch.stack([found, torch.full_like(found, total_width(pixels))], 1)


MEANING = "Whether few of the changed pixels carry the decision; about -1 to 1."
COUT = Quantity("cout", "COUT", HIGHER, (-1.02, 1.02), MEANING)  # the widths of its steps add up to 1.02 at most
NORMALISED = Quantity("cout_normalised", "COUT, normalised", HIGHER, COSINE, "COUT over its total width.")
INSERTION = Judge("cout", open_insertion, dtype="<f8")
HOOKS = {"asked": "pair", "measure": lambda answers: (answers[:, 0], answers[:, 0] / answers[:, 1])}
register(Metric("cout", 50, (COUT, NORMALISED), __doc__, CORRECT, INSERTION, **HOOKS))
