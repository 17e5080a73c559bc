"""The gradient of a loss through nothing, through the filter, checkpointed, in one step, or by DiME's shortcut.

Every function takes an objective, (N, C, H, W) pictures -> a scalar that is a *sum* over pictures, so that the
gradient of a picture does not depend on its batch, and returns the gradient at ``image``, of its shape.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import NoiseFn

Objective = Callable[[Tensor], Tensor]


def gradient_of(
    config: AttackConfig,
    objective: Objective,
    filter_: Filter,
    image: Tensor,
    noise: NoiseFn,
    by_student: Sequence[bool] = (),
) -> Tensor:
    """The gradient that the settings ask for.  by_student: see ``Filter.predict``."""
    if not config.attack_joint or filter_.steps == 0:
        return plain_gradient(objective, image)
    if config.attack_joint_shortcut:
        return shortcut_gradient(objective, filter_, image, noise)
    if config.attack_joint_checkpoint:
        segment = config.attack_checkpoint_backward_steps
        assert isinstance(segment, int), "auto is decided before an attack begins"
        return checkpointed_gradient(objective, filter_, image, noise, segment=segment)
    if config.attack_filter == "one-step":
        return one_step_gradient(objective, filter_, image, noise, by_student)
    return chain_gradient(objective, filter_, image, noise)


def plain_gradient(objective: Objective, image: Tensor) -> Tensor:
    """d objective(image) / d image: an ordinary adversarial gradient."""
    image = leaf(image)
    return torch.autograd.grad(objective(image), image)[0]


def chain_gradient(objective: Objective, filter_: Filter, image: Tensor, noise: NoiseFn) -> Tensor:
    """d objective(F_tau(image)) / d image, with the graph of all steps in memory."""
    return gradient_through(partial(filter_, noise=noise), objective, image)


def one_step_gradient(
    objective: Objective, filter_: Filter, image: Tensor, noise: NoiseFn, by_student: Sequence[bool] = ()
) -> Tensor:
    """d objective(filter_.predict(image)) / d image: time and memory of one call, whatever the number of steps."""
    return gradient_through(partial(filter_.predict, noise=noise, by_student=by_student), objective, image)


def checkpointed_gradient(
    objective: Objective, filter_: Filter, image: Tensor, noise: NoiseFn, *, segment: int
) -> Tensor:
    """The gradient of ``chain_gradient``, with the graph of ``segment`` steps in memory at a time.

    Of T steps, those before the last segment run once without a graph, and all T once with one. The noise must be a
    function of the step, as ``core.noise`` makes it.
    """
    bounds = [*range(filter_.steps, 0, -segment), 0]
    segments = list(zip(bounds, bounds[1:], strict=False))
    with torch.no_grad():
        states = [filter_.start(image, noise)]
        for first, last in segments[:-1]:
            states.append(filter_.denoise(states[-1], noise, first=first, last=last))
    cotangent: Tensor | None = None
    for (first, last), state in zip(reversed(segments), reversed(states), strict=True):
        state = leaf(state)
        output = filter_.denoise(state, noise, first=first, last=last)
        if cotangent is None:
            output = filter_.to_picture(output)
            cotangent = plain_gradient(objective, output)
        cotangent = pull_back(output, state, cotangent)
    assert cotangent is not None, "a filter of no step has no segment"
    image = leaf(image)
    return pull_back(filter_.start(image, noise), image, cotangent)


def shortcut_gradient(objective: Objective, filter_: Filter, image: Tensor, noise: NoiseFn) -> Tensor:
    """The gradient at the filtered picture over sqrt(alphas_cumprod) of the first step (DiME, ACCV 2022)."""
    with torch.no_grad():
        filtered = filter_(image, noise)
    return plain_gradient(objective, filtered) / filter_.diffusion.sqrt_alphas_cumprod.values[filter_.steps - 1]


def gradient_through(filtering: Callable[[Tensor], Tensor], objective: Objective, image: Tensor) -> Tensor:
    """d objective(filtering(image)) / d image."""
    image = leaf(image)
    filtered = filtering(image)
    return pull_back(filtered, image, plain_gradient(objective, filtered))


def leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def pull_back(output: Tensor, wrt: Tensor, cotangent: Tensor) -> Tensor:
    """The vector-Jacobian product, scaled so that each picture's cotangent has a largest entry near 1.

    Otherwise the small gradients of a confident classifier would round to zero in a half-precision torso. The scale
    is a power of two, which changes no digit in float32.
    """
    largest = cotangent.abs().amax((1, 2, 3), keepdim=True)
    exponent = torch.where(largest > 0, largest, torch.ones_like(largest)).log2().ceil().clamp(min=-100)
    scale = torch.exp2(exponent)
    return torch.autograd.grad(output, wrt, cotangent / scale)[0] * scale
