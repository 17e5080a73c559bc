"""A student of a diffusion model, in the place of a model in its trainer: what it learns, and how it is looked at."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import FlagError, from_dict, to_dict
from ace_counterfactuals.core.method.config import SamplingConfig
from ace_counterfactuals.core.method.filtering import Filter, to_image
from ace_counterfactuals.core.method.noise import Draw, image_noise
from ace_counterfactuals.core.method.task import chain_of
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.sampling import open_model, said_of_model
from ace_counterfactuals.models.student import Student, new_student

UNUSED = {"init_weights", "init_step", "min_snr_gamma", "fid_network", "choose", "class_cond", "use_fp16"}
UNUSED |= {"sample", "use_ddim", "sample_classes"}
MOVED, FIELD = 0.3, 4  # how far pictures are moved at most, by squares of so many pixels
SHOWN = 8


class Distillation:
    """The one step of a chain that a student is trained at, for ``Trainer``: x_0 as the model expects it there.

    Half of the pictures are moved before, by up to MOVED in squares, lest the student knows none that an attack has
    changed.
    """

    num_timesteps = 1

    def __init__(self, filter_: Filter, channels: int):
        self.filter, self.channels = filter_, channels

    @property
    def signal(self) -> float:
        """alphas_cumprod there."""
        return self.filter.diffusion.alphas_cumprod.values[self.filter.steps - 1].item()

    def training_losses(
        self, student: Student, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None
    ) -> dict[str, Tensor]:
        """(N,) mean squared distances to what the model expects, its prediction not clipped."""
        x_t = math.sqrt(self.signal) * moved(x_0, eps) + math.sqrt(1 - self.signal) * eps
        with torch.no_grad():
            expected = self.filter.expected(x_t)
        loss = (student(x_t) - expected).square().flatten(1).mean(1)
        return {"loss": loss, "mse": loss.detach()}


def moved(x_0: Tensor, eps: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1], half of them changed in squares.

    What decides is the picture's own noise ``eps``, turned around, which has nothing to do with that in its place.
    """
    turned = eps.flip(2, 3)
    signs = F.avg_pool2d(turned, FIELD, ceil_mode=True).sign()
    signs = F.interpolate(signs, scale_factor=float(FIELD))[:, :, : x_0.shape[2], : x_0.shape[3]]
    drawn = torch.special.ndtr(turned[:, :1, :1, :1])  # evenly from [0, 1]
    return (x_0 + 2 * MOVED * (drawn - 0.5).clamp(min=0) * signs).clamp(-1, 1)


def settled(config: TrainDiffusionConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> TrainDiffusionConfig:
    """With what the files of the model say of it.  Raises FlagError for a flag that a student has no use for."""
    if useless := next((name for name in typed if name in UNUSED and typed[name]), None):
        raise FlagError(useless, f"{typed[useless]}: of no use with distill; leave it out")
    if not config.drawing.model_path:
        raise FlagError("model_path", "is not given: with distill, the diffusion model to learn from")
    return from_dict(TrainDiffusionConfig, to_dict(config) | said_of_model(config, typed, others))


def distillation(config: TrainDiffusionConfig, device: torch.device) -> Distillation:
    """By the model and the filter that the flags name.  Raises FlagError."""
    model = open_model(config, device)
    if model.class_cond:
        raise FlagError("model_path", "takes classes, which a student does not know")
    share = SamplingConfig(
        timestep_respacing=config.drawing.timestep_respacing,
        sampling_time_fraction=config.distilling.sampling_time_fraction,
    )
    diffusion, steps = chain_of(share, model.respaced(share.timestep_respacing, clip_denoised=False).process)
    if not steps:
        raise FlagError("sampling_time_fraction", "0: the filter that the student is for takes no step; give its share")
    return Distillation(Filter(diffusion, model, steps), model.channels)


def begun(config: TrainDiffusionConfig, process: Distillation, channels: int) -> Student:
    """A student that knows nothing yet."""
    if channels > process.channels:
        raise FlagError("image_channels", f"{channels}: model_path is of pictures of {process.channels}")
    return new_student(process.channels, config.pictures.shape, config.distilling.student_width, process.signal)


@torch.no_grad()
def looked_at(student: nn.Module, process: Distillation, x_0: Tensor, seed: int) -> Tensor:
    """Rows of N pictures (3 N, C, H, W) in [0, 1]: noised, and what the model and the student expect."""
    noise = image_noise(seed, list(range(len(x_0))), 0)
    x_t = process.filter.start(to_image(x_0), noise, Draw.START)
    return to_image(torch.cat([x_t, process.filter.expected(x_t), student(x_t)])).clamp(0, 1)
