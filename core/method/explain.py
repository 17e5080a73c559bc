"""One batch: pictures in, pre-explanations and counterfactuals out. The Python API of the project."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import blaming
from ace_counterfactuals.core.method.attacks import GradFn, make_attack
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.filtering import Filter, refine, step_tensor
from ace_counterfactuals.core.method.gradients import (
    Objective,
    chain_gradient,
    checkpointed_gradient,
    plain_gradient,
    shortcut_gradient,
)
from ace_counterfactuals.core.method.noise import REFINEMENT, NoiseFn, image_noise, no_noise
from ace_counterfactuals.core.method.objectives import (
    choose_targets,
    classification_loss,
    distance_gradient,
    distance_weight,
    margin_loss,
    predict,
    untargeted_loss,
)
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import Denoiser, GaussianDiffusion

Classifier = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] -> logits, (N,) if binary and (N, K) for K classes"""


@dataclass(frozen=True)
class Explanation:
    """What ``explain`` found for N pictures.

    pre_explanation, counterfactual, noised: (N, 3, H, W) in [0, 1]; ``noised`` is the pre-explanation at step tau.
    mask: (N, 1, H, W) in [0, 1], the pre-explanation's change before dilation; keep: bool, pixels that stayed.
    prediction: (N,); target: (N,) or None if untargeted; the logits are the classifier's on each picture.
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


@torch.no_grad()
def explain(
    image: Tensor,
    classifier: Classifier,
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    *,
    attack: AttackConfig,
    sampling: SamplingConfig,
    label: Tensor | None = None,
    label_target: int = -1,
    indices: list[int] | None = None,
    seed: int = 4,
    class_cond: bool = False,
    region: Tensor | None = None,
) -> Explanation:
    """Explain what would have to change in each picture for the classifier to decide otherwise (ACE, Algorithm 1).

    image: (N, 3, H, W) in [0, 1].  label: (N,), -1 where unknown, which is the default.
    indices: (N) numbers of the pictures, which their noise depends on; default 0 .. N - 1.
    label_target: see ``choose_targets``.  diffusion: already respaced as ``sampling`` says of the attack's filter.
    class_cond: the denoiser takes the target as its class.
    region: (N or 1, 1, H, W) bool, where a picture may change; outside it both results equal it to the bit.
    Raises ValueError for a target outside the classifier's outputs and NonFiniteError if a network returns NaN.
    """
    check_pictures(image)
    check_region(region, image)
    indices = list(range(len(image))) if indices is None else indices
    logits = judge_original(image, classifier, indices)
    prediction = predict(logits)
    label = torch.full_like(prediction, -1) if label is None else label
    target = choose_targets(prediction, label, label_target, binary=logits.ndim == 1)
    check_target(target, logits)
    filter_ = Filter(diffusion, denoiser, filter_steps(sampling, diffusion), target if class_cond else None)
    noise_of = noise_source(seed, indices, sampling)
    pre_explanation = image
    if attack.attack_method != "None":
        objective = make_objective(classifier, attack.attack_method, prediction, target)
        grad_fn = make_grad_fn(objective, filter_, image, noise_of, attack, indices)
        perturb = make_attack(attack.attack_method, step=attack.attack_step / 255, epsilon=attack.attack_epsilon / 255)
        pre_explanation = perturb(grad_fn, image, attack.attack_iterations, region)
    found = {"logits": logits, "target": target, "indices": indices, "region": region}
    refiner = refining_filter(filter_, sampling)
    return finish(image, pre_explanation, classifier, refiner, noise_of(REFINEMENT), sampling, **found)


@torch.no_grad()
def explain_again(
    image: Tensor,
    pre_explanation: Tensor,
    classifier: Classifier,
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    *,
    sampling: SamplingConfig,
    target: Tensor | None,
    indices: list[int] | None = None,
    seed: int = 4,
    class_cond: bool = False,
    region: Tensor | None = None,
) -> Explanation:
    """``explain`` from a pre-explanation that an attack left: refine it and judge the result.

    image, pre_explanation: (N, 3, H, W) in [0, 1].  target: (N,), or None if untargeted.  The others, and the errors,
    are those of ``explain``.
    """
    for picture in (image, pre_explanation):
        check_pictures(picture)
    if image.shape != pre_explanation.shape:
        raise ValueError(f"pictures {tuple(image.shape)}, but pre-explanations {tuple(pre_explanation.shape)}")
    check_region(region, image)
    indices = list(range(len(image))) if indices is None else indices
    logits = judge_original(image, classifier, indices)
    check_target(target, logits)
    filter_ = Filter(diffusion, denoiser, filter_steps(sampling, diffusion), target if class_cond else None)
    noise = noise_source(seed, indices, sampling)(REFINEMENT)
    found = {"logits": logits, "target": target, "indices": indices, "region": region}
    refiner = refining_filter(filter_, sampling)
    return finish(image, pre_explanation, classifier, refiner, noise, sampling, **found)


def finish(
    image: Tensor,
    pre_explanation: Tensor,
    classifier: Classifier,
    filter_: Filter,
    noise: NoiseFn,
    sampling: SamplingConfig,
    *,
    logits: Tensor,
    target: Tensor | None,
    indices: list[int],
    region: Tensor | None,
) -> Explanation:
    """What follows the attack: refine the pre-explanation, and let the classifier judge both pictures."""
    inpaint, dilation = sampling.sampling_inpaint, sampling.sampling_dilation
    refined = refine(filter_, image, pre_explanation, noise, inpaint=inpaint, dilation=dilation, region=region)
    check_finite(refined.counterfactual, "the refinement", filter_, pre_explanation, noise, indices)
    pre_logits, cf_logits = classifier(pre_explanation), classifier(refined.counterfactual)
    check_logits(pre_logits, "the pre-explanation", indices)
    check_logits(cf_logits, "the counterfactual", indices)
    return Explanation(
        image=image,
        pre_explanation=pre_explanation,
        counterfactual=refined.counterfactual,
        noised=refined.noised,
        mask=refined.mask,
        keep=refined.keep,
        prediction=predict(logits),
        target=target,
        logits=logits,
        pre_logits=pre_logits,
        cf_logits=cf_logits,
    )


def noise_source(seed: int, indices: list[int], sampling: SamplingConfig) -> Callable[[int], NoiseFn]:
    """Iteration of the attack, or REFINEMENT -> the noise of that pass of the filter."""
    return lambda iteration: image_noise(seed, indices, iteration) if sampling.sampling_stochastic else no_noise


def judge_original(image: Tensor, classifier: Classifier, indices: list[int]) -> Tensor:
    """The classifier's logits on the pictures that are to be explained."""
    logits = classifier(image)
    check_logits(logits, "the original", indices)
    return logits


def check_pictures(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not 0 <= image.min() <= image.max() <= 1:
        raise ValueError(f"wanted pictures (N, 3, H, W) in [0, 1]; got {tuple(image.shape)} in {span(image)}")


def check_region(region: Tensor | None, image: Tensor) -> None:
    if region is None:
        return
    shapes = [(n, 1, *image.shape[2:]) for n in (len(image), 1)]
    if region.dtype != torch.bool or tuple(region.shape) not in shapes:
        raise ValueError(f"region: wanted bool {shapes[0]} or {shapes[1]}; got {region.dtype} {tuple(region.shape)}")


def span(x: Tensor) -> str:
    return f"[{x.min().item():.3g}, {x.max().item():.3g}]" if x.numel() else "nothing"


def filter_steps(sampling: SamplingConfig, diffusion: GaussianDiffusion) -> int:
    """T: ``--sampling_time_fraction`` of the respaced steps, rounded down; 0 only if the fraction is."""
    fraction, respaced = sampling.sampling_time_fraction, diffusion.num_timesteps
    steps = int(fraction * respaced)
    if steps == 0 and fraction > 0:
        raise ValueError(
            f"--sampling_time_fraction {fraction} of {respaced} respaced steps is less than one step; "
            f"choose at least {1 / respaced:.3g}, or more steps in --timestep_respacing"
        )
    return steps


def refining_filter(filter_: Filter, sampling: SamplingConfig) -> Filter:
    """The refinement's filter: the attack's, ``filter_``, but for the steps that the ``refine_`` flags give it."""
    own = sampling.of_refinement
    respaced = own.timestep_respacing != sampling.timestep_respacing
    with blaming("timestep_respacing"):
        diffusion = filter_.diffusion.respaced(own.timestep_respacing) if respaced else filter_.diffusion
    return replace(filter_, diffusion=diffusion, steps=filter_steps(own, diffusion))


def make_objective(classifier: Classifier, method: str, prediction: Tensor, target: Tensor | None) -> Objective:
    """pictures -> the summed classification loss that the attack descends."""
    if target is None:
        if method == "C&W":
            raise ValueError("--attack_method C&W is targeted; give a --label_target")
        loss = partial(untargeted_loss, prediction=prediction)
    else:
        loss = partial(margin_loss if method == "C&W" else classification_loss, target=target)
    return lambda image: loss(classifier(image))


def make_grad_fn(
    objective: Objective,
    filter_: Filter,
    image: Tensor,
    noise_of: Callable[[int], NoiseFn],
    attack: AttackConfig,
    indices: list[int],
) -> GradFn:
    """The gradient that the flags describe: of the classification loss and the distance, new noise each iteration."""

    def classification_gradient(adversary: Tensor, noise: NoiseFn) -> Tensor:
        if not attack.attack_joint or filter_.steps == 0:
            return plain_gradient(objective, adversary)
        if attack.attack_joint_shortcut:
            return shortcut_gradient(objective, filter_, adversary, noise)
        if attack.attack_joint_checkpoint:
            segment = attack.attack_checkpoint_backward_steps
            return checkpointed_gradient(objective, filter_, adversary, noise, segment=segment)
        return chain_gradient(objective, filter_, adversary, noise)

    def grad_fn(adversary: Tensor, iteration: int) -> Tensor:
        noise = noise_of(iteration)
        with torch.enable_grad():
            gradient = classification_gradient(adversary, noise)
        check_finite(gradient, f"iteration {iteration} of the attack", filter_, adversary, noise, indices)
        weight = distance_weight(attack.dist_schedule, iteration, attack.attack_iterations)
        distance = distance_gradient(image, adversary, dist_l1=attack.dist_l1, dist_l2=attack.dist_l2)
        return gradient + weight * distance

    return grad_fn


def check_target(target: Tensor | None, logits: Tensor) -> None:
    outputs = 2 if logits.ndim == 1 else logits.shape[1]
    if target is not None and not ((target >= 0) & (target < outputs)).all():
        raise ValueError(f"target {target.max().item()} is outside the classifier's outputs, 0 to {outputs - 1}")


class NonFiniteError(ValueError):
    """A network returned NaN or infinity; ``indices`` are the pictures that it happened to."""

    def __init__(self, message: str, indices: list[int]):
        super().__init__(message)
        self.indices = indices


def check_finite(
    result: Tensor, where: str, filter_: Filter, image: Tensor, noise: NoiseFn, indices: list[int]
) -> None:
    """Raise NonFiniteError naming pictures, iteration and denoising step if ``result`` is not finite."""
    if result.isfinite().all():
        return
    step = first_non_finite_step(filter_, image, noise)
    place = "in the gradient" if step is None else f"at denoising step {step} of {filter_.steps}"
    raise non_finite(result, f"{where}, {place}", indices)


def check_logits(logits: Tensor, picture: str, indices: list[int]) -> None:
    """A classifier's NaN would pass for a prediction."""
    if not logits.isfinite().all():
        raise non_finite(logits, f"the classifier's output for {picture}", indices)


def non_finite(result: Tensor, where: str, indices: list[int]) -> NonFiniteError:
    finite = result.isfinite().reshape(len(indices), -1).all(1).tolist()
    bad = [index for index, ok in zip(indices, finite, strict=True) if not ok]
    names = ", ".join(f"{index:07d}" for index in bad)
    return NonFiniteError(f"picture {names}: NaN or infinity in {where}", bad)


@torch.no_grad()
def first_non_finite_step(filter_: Filter, image: Tensor, noise: NoiseFn) -> int | None:
    """Run the filter again to find the step whose network output is not finite, if it is a forward pass at all."""
    x_t = filter_.start(image, noise)
    for t in reversed(range(filter_.steps)):
        output = filter_.diffusion.denoiser_output(filter_.model, x_t, step_tensor(t, x_t), filter_.classes)
        if not output.isfinite().all():
            return t
        x_t = filter_.denoise(x_t, noise, first=t + 1, last=t)
    return None
