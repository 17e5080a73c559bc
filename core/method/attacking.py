"""The one loop that attacks pictures, some at a time: one that is done makes room for the next."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ace_counterfactuals.core.base.runtime import upload
from ace_counterfactuals.core.method.attacks import Attack, GradFn, update
from ace_counterfactuals.core.method.gradients import gradient_of
from ace_counterfactuals.core.method.noise import Ahead, Asked, of_each
from ace_counterfactuals.core.method.objectives import distance_gradient, distance_weight
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.stopping import Stopping
from ace_counterfactuals.core.method.task import Batch

OnIteration = Callable[[Progress], None]
"""Called after each iteration with where the attack stands, from where ``attacked`` goes on."""

More = Callable[[int], Batch | None]
"""How many pictures there is room for -> up to so many, None where there are no more."""

Item = TypeVar("Item")


@torch.no_grad()
def attack(batch: Batch, on_iteration: OnIteration | None = None) -> tuple[Tensor, Tensor | None]:
    """The pre-explanations, (N, C, H, W) in [0, 1], and ``Explanation.iterations``."""
    count = len(batch.indices)
    done = next(attacked(Progress.begin(batch), count, count, on_iteration=on_iteration))
    return done.found, counted(done)


def counted(done: Progress) -> Tensor | None:
    """Updates of each, where pictures may end before the others."""
    return done.iterations.to(done.batch.prediction) if Stopping(done.batch.task.attack).early else None


@torch.no_grad()
def attacked(
    at: Progress, size: int, group: int, more: More | None = None, on_iteration: OnIteration | None = None
) -> Iterator[Progress]:
    """Attack pictures, up to ``size`` at a time; yields those that are done, ``group`` at a time.

    at: what is in hand, at its beginning or where it stood.  more: asked for the next pictures where some end before
    the others, so that those cost nothing.  It ends when nothing is in hand.  No iteration waits for the device,
    but where pictures may end early, for one number of each.  Raises NonFiniteError where pictures would be done.
    """
    stopping, ahead = Stopping(at.batch.task.attack), Ahead(at.batch.task.attack.attack_iterations)
    drawn = ahead if draws_ahead(at.found.device) else Asked.drawn
    while True:
        left = stopping.left(at)
        done = sorted({*range(len(at))} - {*left})
        if more and stopping.early and len(left) < size and len(done) < group:
            if new := more(size - len(left)):
                at = at.joined(Progress.begin(new))
            else:
                more = None
        elif left and len(done) < group:
            part = updated(at.take(full(left[:size], size)), stopping, drawn)
            at = at.put(left[:size], part)
            if on_iteration:
                on_iteration(at)
        else:
            ended = at.take(done[:group])
            ended.check()
            yield ended
            if not (rest := sorted(left + done[group:])):
                return
            at = at.take(rest)


def full(items: list[Item], size: int) -> list[Item]:
    """With deterministic kernels, which may go by a batch's size, its last one is computed in the place of others."""
    lacking = size - len(items) if torch.are_deterministic_algorithms_enabled() else 0
    return items + items[-1:] * lacking


def draws_ahead(device: torch.device) -> bool:
    """Whether it gains anything: a CPU has the networks to compute, of whose time the noise takes some thousandths."""
    return device.type != "cpu"


def updated(at: Progress, stopping: Stopping, drawn: Callable[[Asked], Tensor]) -> Progress:
    """After another update of each.  drawn: who draws the noise."""
    batch, entry = at.batch, at.attack
    assert entry, "without an attack all are done"
    gradient = make_grad_fn(batch, entry, stopping.see, drawn)(at.found, at.iterations.tolist())
    variable, found = update(entry, at.variable, gradient, batch.image, batch.task.attack, batch.region)
    return stopping.count(at.moved(gradient, variable, found))


def make_grad_fn(
    batch: Batch,
    entry: Attack,
    on_logits: Callable[[Tensor], None] | None = None,
    drawn: Callable[[Asked], Tensor] = Asked.drawn,
) -> GradFn:
    """The gradient that the settings describe: of the classification and the distance, new noise each iteration.

    on_logits: called with the classifier's logits on what it is taken at, the filtered pictures.
    drawn: who draws the noise.
    """
    config, filter_ = batch.task.attack, batch.filter

    def objective(picture: Tensor) -> Tensor:
        logits = batch.task.classifier(picture)
        if on_logits:
            on_logits(logits)
        return -entry.loss(logits, batch.prediction) if batch.target is None else entry.loss(logits, batch.target)

    def grad_fn(adversary: Tensor, iteration: int | Sequence[int]) -> Tensor:
        each, noise = of_each(iteration, len(adversary)), batch.noise(iteration, drawn)
        with torch.enable_grad():
            by_student = [bool(filter_.student) and not config.by_model(i) for i in each]
            gradient = gradient_of(config, objective, filter_, adversary, noise, by_student)
        weights = [distance_weight(config.dist_schedule, i, config.attack_iterations) for i in each]
        distance = distance_gradient(batch.image, adversary, dist_l1=config.dist_l1, dist_l2=config.dist_l2)
        weight = upload(torch.tensor(weights, dtype=distance.dtype), distance.device)
        return gradient + weight.view(-1, 1, 1, 1) * distance

    return grad_fn
