"""Pictures in, pre-explanations and counterfactuals out: the method as a whole."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ace_counterfactuals.core.method.attacking import OnIteration, attack, counted, full
from ace_counterfactuals.core.method.checks import check_finite, check_logits, check_pictures
from ace_counterfactuals.core.method.filtering import inpaint
from ace_counterfactuals.core.method.noise import REFINEMENT
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch, Task, judge


@dataclass(frozen=True)
class Explanation:
    """What was found for N pictures.

    pre_explanation, counterfactual, noised: (N, C, H, W) in [0, 1]; ``noised`` is the pre-explanation at step tau.
    mask: (N, 1, H, W) in [0, 1], the pre-explanation's change before dilation; keep: bool, pixels that stayed.
    prediction: (N,); target: (N,) or None if untargeted; the logits are the classifier's on each picture.
    iterations: (N,) updates of the attack, where pictures may end before the others, else None.
    """

    image: Tensor
    pre_explanation: Tensor
    counterfactual: Tensor
    noised: Tensor
    mask: Tensor
    keep: Tensor
    prediction: Tensor
    target: Tensor | None
    logits: Tensor
    pre_logits: Tensor
    cf_logits: Tensor
    iterations: Tensor | None


@torch.no_grad()
def explain(
    image: Tensor,
    task: Task,
    *,
    label: Tensor | None = None,
    indices: list[int] | None = None,
    region: Tensor | None = None,
    on_iteration: OnIteration | None = None,
) -> Explanation:
    """Explain what would have to change in each picture for the classifier to decide otherwise (ACE, Algorithm 1).

    image: (N, C, H, W) in [0, 1], C 3 or, of grey pictures, 1.  label: (N,), -1 where unknown, which is the default.
    indices: (N) numbers of the pictures, which their noise depends on; default 0 .. N - 1.
    region: (N or 1, 1, H, W) bool, where a picture may change; outside it both results equal it to the bit.
    Raises ValueError for a target outside the classifier's outputs and NonFiniteError if a network returns NaN.
    """
    batch = judge(image, task, indices, region).aimed(label)
    return conclude(batch, *attack(batch, on_iteration))


@torch.no_grad()
def refine(
    image: Tensor,
    pre_explanation: Tensor,
    task: Task,
    *,
    target: Tensor | None,
    indices: list[int] | None = None,
    region: Tensor | None = None,
) -> Explanation:
    """``explain`` from a pre-explanation that an attack left.

    image, pre_explanation: (N, C, H, W) in [0, 1].  target: (N,), or None if untargeted; the task's is not asked.
    The others, and the errors, are those of ``explain``.
    """
    check_pictures(pre_explanation)
    if image.shape != pre_explanation.shape:
        raise ValueError(f"pictures {tuple(image.shape)}, but pre-explanations {tuple(pre_explanation.shape)}")
    return conclude(judge(image, task, indices, region).aimed_at(target), pre_explanation)


def conclude_all(done: Progress, group: int) -> Explanation:
    """``conclude``, of pictures whose attack is done, up to ``group``.  With deterministic kernels the last is repeated
    until they are so many."""
    done = done.take(full([*range(len(done))], group))
    return conclude(done.batch, done.found, counted(done))


@torch.no_grad()
def conclude(batch: Batch, pre_explanation: Tensor, iterations: Tensor | None = None) -> Explanation:
    """What follows the attack: refine the pre-explanation, and let the classifier judge both pictures."""
    refiner, noise, indices = batch.refiner, batch.noise(REFINEMENT), batch.indices
    refined = inpaint(refiner, batch.image, pre_explanation, noise, batch.task.sampling, batch.region)
    check_finite(refined.counterfactual, "the refinement", refiner, pre_explanation, noise, indices)
    pre_logits, cf_logits = (batch.task.classifier(picture) for picture in (pre_explanation, refined.counterfactual))
    check_logits(pre_logits, "the pre-explanation", indices)
    check_logits(cf_logits, "the counterfactual", indices)
    return Explanation(
        image=batch.image,
        pre_explanation=pre_explanation,
        **vars(refined),
        prediction=batch.prediction,
        target=batch.target,
        logits=batch.logits,
        pre_logits=pre_logits,
        cf_logits=cf_logits,
        iterations=iterations,
    )
