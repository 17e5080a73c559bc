"""The filter F_tau, the one denoising loop, and the inpainting refinement (ACE, section 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ace_counterfactuals.core.method.config import SamplingConfig
from ace_counterfactuals.core.method.noise import Draw, NoiseFn, no_noise
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import Denoiser, GaussianDiffusion
from ace_counterfactuals.guided_diffusion.unet import Deep


def to_diffusion(image: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]."""
    return 2 * image - 1


def to_image(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], not clamped."""
    return (x + 1) / 2


@dataclass(frozen=True)
class Filter:
    """Noise a picture by ``steps`` steps of the (respaced) chain and denoise it again.

    classes: (N,) for a class-conditional model. ``steps`` 0 changes nothing.
    grey: pictures have one channel where the model has three. It is shown three equal ones, each with noise of its own
    as in its training, and the picture is the mean of what comes back.
    student: x_t of the last of the steps -> x_0, in the place of the model's own prediction.
    deep_every: the steps at which all levels of a U-Net are computed, and not the first one alone.
    """

    diffusion: GaussianDiffusion
    model: Denoiser
    steps: int
    classes: Tensor | None = None
    grey: bool = False
    student: Callable[[Tensor], Tensor] | None = None
    deep_every: int = 1

    def __call__(self, image: Tensor, noise: NoiseFn) -> Tensor:
        """F_tau(image): (N, C, H, W) in [0, 1] -> the same shape, not clamped."""
        return self.to_picture(self.denoise(self.start(image, noise), noise))

    def to_picture(self, x: Tensor) -> Tensor:
        """The model's [-1, 1] -> a picture in [0, 1], not clamped."""
        first = x[:, :1]
        return to_image(first + (x - first).mean(1, keepdim=True) if self.grey else x)  # exact where all are equal

    def predict(self, image: Tensor, noise: NoiseFn, by_student: Sequence[bool] = ()) -> Tensor:
        """The picture expected from x_t at the last of the filter's steps (Tweedie's formula), by one call of the
        network however many steps there are: (N, C, H, W) in [0, 1] -> the same shape, not clamped.

        by_student: which pictures the student predicts.
        """
        if not self.steps:
            return image
        x_t = self.start(image, noise)
        own = [i for i, other in enumerate(by_student) if other]
        if not own:
            return self.to_picture(self.expected(x_t, self.classes))
        if len(own) == len(x_t):
            return self.to_picture(self._by_student(x_t))
        rest = [i for i, other in enumerate(by_student) if not other]
        classes = None if self.classes is None else self.classes[rest]
        theirs, ours = iter(self._by_student(x_t[own])), iter(self.expected(x_t[rest], classes))
        return self.to_picture(torch.stack([next(theirs if other else ours) for other in by_student]))

    def expected(self, x_t: Tensor, classes: Tensor | None = None) -> Tensor:
        """The x_0 that the model predicts from x_t of the last of the filter's steps."""
        return self.diffusion.p_mean_variance(self.model, x_t, step_tensor(self.steps - 1, x_t), classes).pred_xstart

    def _by_student(self, x_t: Tensor) -> Tensor:
        assert self.student, "asked for without there being one"
        x_0 = self.student(x_t)
        return x_0.clamp(-1, 1) if self.diffusion.clip_denoised else x_0

    def start(self, image: Tensor, noise: NoiseFn, draw: Draw = Draw.START, t: int | None = None) -> Tensor:
        """x_t ~ q(x_t | image), at the last of the filter's steps if ``t`` is not given."""
        t = self.steps - 1 if t is None else t
        x_0 = to_diffusion(image.expand(-1, 3, -1, -1) if self.grey else image)
        return x_0 if t < 0 else self.diffusion.q_sample(x_0, step_tensor(t, x_0), noise(draw, t, x_0))

    def denoise(
        self,
        x_t: Tensor,
        noise: NoiseFn,
        *,
        first: int | None = None,
        last: int = 0,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Take the reverse steps from below ``first`` (default: all) down to ``last``, in [-1, 1].

        kept: (N, 1, H, W) bool and pictures (N, C, H, W); before every step the pixels of the one are the other's,
        noised to that step (RePaint, Lugmayr et al. 2022, without resampling).
        """
        model = self.model
        for i, t in enumerate(reversed(range(last, self.steps if first is None else first))):
            if self.deep_every > 1 and i % self.deep_every == 0:
                model = partial(self.model, deep=Deep())
            if kept:
                keep, image = kept
                x_t = torch.where(keep, self.start(image, noise, Draw.KEPT, t), x_t)
            posterior = self.diffusion.p_mean_variance(model, x_t, step_tensor(t, x_t), self.classes)
            x_t = posterior.mean
            if t > 0 and noise is not no_noise:
                x_t = x_t + torch.exp(0.5 * posterior.log_variance) * noise(Draw.POSTERIOR, t, x_t)
        return x_t


def step_tensor(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


def change_mask(image: Tensor, changed: Tensor) -> Tensor:
    """(N, 1, H, W) in [0, 1]: summed absolute change over its maximum in the picture; all 0 where nothing changed."""
    change = (image - changed).abs().sum(1, keepdim=True)
    largest = change.amax((2, 3), keepdim=True)
    return torch.where(largest > 0, change / largest, torch.zeros_like(change))


def kept_pixels(mask: Tensor, *, inpaint: float, dilation: int) -> Tensor:
    """(N, 1, H, W) bool: pixels far enough from any change to stay the original's.

    mask: from ``change_mask``; a picture that did not change keeps none, so that it is filtered whole.
    dilation: odd side of the square that the mask is dilated by.
    """
    side = min(dilation, 2 * max(mask.shape[2:]) - 1)  # which reaches over the whole mask from each of its corners
    dilated = F.max_pool2d(mask, side, stride=1, padding=(side - 1) // 2)
    return (dilated < inpaint) & (mask.amax((2, 3), keepdim=True) > 0)


@dataclass(frozen=True)
class Refinement:
    """counterfactual: (N, C, H, W) in [0, 1]; noised: the pre-explanation at the filter's last step, in [0, 1];
    mask: of the pre-explanation, undilated, (N, 1, H, W); keep: pixels that stayed, (N, 1, H, W) bool."""

    counterfactual: Tensor
    noised: Tensor
    mask: Tensor
    keep: Tensor


@torch.no_grad()
def inpaint(
    filter_: Filter,
    image: Tensor,
    pre_explanation: Tensor,
    noise: NoiseFn,
    sampling: SamplingConfig,
    region: Tensor | None = None,
) -> Refinement:
    """Denoise the pre-explanation once more, putting the original's pixels back outside the mask of what changed.

    image, pre_explanation: (N, C, H, W) in [0, 1].  region: (N or 1, 1, H, W) bool; outside it the original's pixels
    are put back in any case.
    """
    mask = change_mask(image, pre_explanation)
    keep = kept_pixels(mask, inpaint=sampling.sampling_inpaint, dilation=sampling.sampling_dilation)
    keep = keep if region is None else keep | ~region
    x_t = filter_.start(pre_explanation, noise)
    x_0 = filter_.denoise(x_t, noise, kept=(keep, image))
    counterfactual = torch.where(keep, image, filter_.to_picture(x_0).clamp(0, 1))
    return Refinement(counterfactual, filter_.to_picture(x_t).clamp(0, 1), mask, keep)
