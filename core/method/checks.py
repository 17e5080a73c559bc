"""What pictures, regions and targets must be, and which network's NaN it was."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.method.filtering import Filter, step_tensor
from ace_counterfactuals.core.method.noise import NoiseFn
from ace_counterfactuals.models.trial import FAILURES, in_training, trial


def check_pictures(image: Tensor) -> None:
    """Raise ValueError for anything but (N, 3, H, W) or (N, 1, H, W) in [0, 1]."""
    if image.ndim != 4 or image.shape[1] not in (1, 3) or not 0 <= image.min() <= image.max() <= 1:
        span = f"[{image.min().item():.3g}, {image.max().item():.3g}]" if image.numel() else "nothing"
        wanted = "wanted pictures (N, 3, H, W), or grey ones (N, 1, H, W), in [0, 1]"
        raise ValueError(f"{wanted}; got {tuple(image.shape)} in {span}")


def check_classifier(classifier: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Raise ValueError for a classifier that an attack cannot follow, tried on a few pictures (N, C, H, W).

    Returns its answers, with their graph.
    """
    if isinstance(classifier, nn.Module) and in_training(classifier):
        raise ValueError("the classifier is in training mode: call its eval() first")
    try:
        return trial(classifier, image)
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        channels, height, width = image.shape[1:]
        reason = " ".join(str(error).split())[-200:]
        raise ValueError(
            f"the classifier fails on pictures of {height} x {width} in {channels} channels ({reason}); "
            "give pictures of the size and channels that it wants"
        ) from None
    except ValueError as error:
        raise ValueError(f"the classifier: {error}") from None


def check_region(region: Tensor | None, image: Tensor) -> None:
    """Raise ValueError for a region that is no mask of these pictures."""
    shapes = [(n, 1, *image.shape[2:]) for n in (len(image), 1)]
    if region is not None and (region.dtype != torch.bool or tuple(region.shape) not in shapes):
        raise ValueError(f"region: wanted bool {shapes[0]} or {shapes[1]}; got {region.dtype} {tuple(region.shape)}")


def check_target(target: Tensor | None, logits: Tensor) -> None:
    """Raise ValueError for a target that the classifier has no output for."""
    outputs = 2 if logits.ndim == 1 else logits.shape[1]
    if target is not None and not ((target >= 0) & (target < outputs)).all():
        raise ValueError(f"target {target.max().item()} is outside the classifier's outputs, 0 to {outputs - 1}")


class NonFiniteError(ValueError):
    """A network returned NaN or infinity; ``indices`` are the pictures that it happened to."""

    def __init__(self, result: Tensor, where: str, indices: list[int]):
        finite = result.isfinite().reshape(len(indices), -1).all(1).tolist()
        self.indices = [index for index, ok in zip(indices, finite, strict=True) if not ok]
        names = ", ".join(f"{index:07d}" for index in self.indices)
        super().__init__(f"picture {names}: NaN or infinity in {where}")


def check_logits(logits: Tensor, picture: str, indices: list[int]) -> None:
    """Raise NonFiniteError: a classifier's NaN would pass for a prediction."""
    if not logits.isfinite().all():
        raise NonFiniteError(logits, f"the classifier's output for {picture}", indices)


def check_finite(
    result: Tensor, where: str, filter_: Filter, image: Tensor, noise: NoiseFn, indices: list[int]
) -> None:
    """Raise NonFiniteError naming pictures and denoising step if ``result`` of filtering ``image`` is not finite."""
    if not result.isfinite().all():
        step = first_non_finite_step(filter_, image, noise)
        place = "in the gradient" if step is None else f"at denoising step {step} of {filter_.steps}"
        raise NonFiniteError(result, f"{where}, {place}", indices)


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
