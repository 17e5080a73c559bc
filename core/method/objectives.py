"""What is decided and what is wanted: predictions, targets, and the distance that an attack is to keep.

Logits are (N,) for a binary classifier and (N, K) for K classes; labels, predictions and targets are (N,) int64.
"""

import torch
from torch import Tensor


def predict(logits: Tensor) -> Tensor:
    return (logits > 0).long() if logits.ndim == 1 else logits.argmax(1)


def probabilities(logits: Tensor) -> Tensor:
    """(N, K): both classes' for a binary classifier."""
    if logits.ndim == 1:
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], 1)
    return logits.softmax(1)


def confidence(logits: Tensor, prediction: Tensor, target: Tensor | None) -> Tensor:
    """(N,): the probability of the target, or without one that of any other class than the prediction."""
    chosen = prediction if target is None else target
    probability = probabilities(logits).gather(1, chosen[:, None])[:, 0]
    return 1 - probability if target is None else probability


def choose_targets(prediction: Tensor, label: Tensor, label_target: int, *, binary: bool) -> Tensor | None:
    """Where each picture is to be sent; None is anywhere but the prediction.

    ``label_target`` -1 flips a binary prediction and leaves more classes untargeted. Otherwise it is the target of
    all pictures but the misclassified ones, which are sent to their true label. A label of -1 is unknown.
    """
    if label_target == -1:
        return 1 - prediction if binary else None
    misclassified = (prediction != label) & (label >= 0)
    return torch.where(misclassified, label, torch.full_like(label, label_target))


def distance_gradient(image: Tensor, adversary: Tensor, *, dist_l1: float, dist_l2: float) -> Tensor:
    """Gradient at ``adversary`` of dist_l1 * sum |x - x_adv| + dist_l2 * ||x - x_adv||_2, 0 where they are equal."""
    change = adversary - image
    length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    direction = torch.where(length > 0, change / length, torch.zeros_like(change))
    return dist_l1 * change.sign() + dist_l2 * direction


def distance_weight(schedule: str, iteration: int, iterations: int) -> float:
    """The weight that ``--dist_schedule`` gives the distances at an iteration."""
    if schedule == "step":
        return 0.0 if iteration <= iterations // 2 else 1.0
    return (iteration + 1) / iterations if schedule == "linear" else 1.0
