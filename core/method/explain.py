"""Pictures in, pre-explanations and counterfactuals out: the method as a whole."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ace_counterfactuals.core.method.attacks import Attack, GradFn, find_attack, iterates
from ace_counterfactuals.core.method.checks import check_finite, check_logits, check_pictures
from ace_counterfactuals.core.method.filtering import inpaint
from ace_counterfactuals.core.method.gradients import (
    chain_gradient,
    checkpointed_gradient,
    one_step_gradient,
    plain_gradient,
    shortcut_gradient,
)
from ace_counterfactuals.core.method.noise import REFINEMENT, NoiseFn
from ace_counterfactuals.core.method.objectives import distance_gradient, distance_weight
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.stopping import Stopping
from ace_counterfactuals.core.method.task import Batch, Task, judge

OnIteration = Callable[[Progress], None]
"""Called after each iteration of an attack with where it stands, from where ``attack`` goes on."""


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


@torch.no_grad()
def attack(
    batch: Batch, on_iteration: OnIteration | None = None, start: Progress | None = None
) -> tuple[Tensor, Tensor | None]:
    """The pre-explanations, (N, C, H, W) in [0, 1], and ``Explanation.iterations``.

    start: where an attack of the same batch stood, which is gone on with.
    A picture that is done leaves the batch.  With deterministic kernels, which may go by a batch's size, the last one
    that is not done is computed in its place once more.
    """
    config = batch.task.attack
    entry = find_attack(config.attack_method, targeted=batch.target is not None)
    if entry is None:
        return batch.image, None
    at, stopping = start or Progress.begin(entry, batch.image, batch.region), Stopping(config)
    while at.iteration < config.attack_iterations and (left := stopping.left(at)):
        if torch.are_deterministic_algorithms_enabled():
            left += left[-1:] * (len(at.rows) - len(left))
        at = at.take(left)
        part = batch.take(at.rows.tolist())
        grad_fn = make_grad_fn(part, entry, stopping.see)
        for iterate in iterates(entry, grad_fn, part.image, config, part.region, at.iterate):
            at = stopping.count(at.moved(iterate), part)
            if on_iteration:
                on_iteration(at)
            if len(stopping.left(at)) < len(at.rows):
                break
    return at.found, at.iterations.to(batch.prediction) if stopping.on else None


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


def make_grad_fn(batch: Batch, entry: Attack, on_logits: Callable[[Tensor], None] | None = None) -> GradFn:
    """The gradient that the settings describe: of the classification and the distance, new noise each iteration.

    on_logits: called with the classifier's logits on what it is taken at, the filtered pictures.
    """
    config, filter_ = batch.task.attack, batch.filter

    def objective(picture: Tensor) -> Tensor:
        logits = batch.task.classifier(picture)
        if on_logits:
            on_logits(logits)
        return -entry.loss(logits, batch.prediction) if batch.target is None else entry.loss(logits, batch.target)

    def classification_gradient(adversary: Tensor, noise: NoiseFn) -> Tensor:
        if not config.attack_joint or filter_.steps == 0:
            return plain_gradient(objective, adversary)
        if config.attack_joint_shortcut:
            return shortcut_gradient(objective, filter_, adversary, noise)
        if config.attack_joint_checkpoint:
            segment = config.attack_checkpoint_backward_steps
            return checkpointed_gradient(objective, filter_, adversary, noise, segment=segment)
        through = one_step_gradient if config.attack_filter == "one-step" else chain_gradient
        return through(objective, filter_, adversary, noise)

    def grad_fn(adversary: Tensor, iteration: int) -> Tensor:
        noise = batch.noise(iteration)
        with torch.enable_grad():
            gradient = classification_gradient(adversary, noise)
        check_finite(gradient, f"iteration {iteration} of the attack", filter_, adversary, noise, batch.indices)
        weight = distance_weight(config.dist_schedule, iteration, config.attack_iterations)
        distance = distance_gradient(batch.image, adversary, dist_l1=config.dist_l1, dist_l2=config.dist_l2)
        return gradient + weight * distance

    return grad_fn
