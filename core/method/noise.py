"""Noise as a function of (seed, image index, what for): independent of batch, chunk, order and resume."""

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.runtime import upload


class Draw(IntEnum):
    """What a draw inside one pass of the filter is for."""

    START = 0  # the q_sample that the pass starts from
    POSTERIOR = 1  # the noise added after a reverse step
    KEPT = 2  # the q_sample of the original pixels that an inpainting pass puts back


NoiseFn = Callable[[Draw, int, Tensor], Tensor]
"""(what for, step t, x) -> standard normal noise of x's shape, type and device, a picture at a time."""

REFINEMENT = -1


def image_noise(seed: int, indices: Sequence[int], iteration: int | Sequence[int]) -> NoiseFn:
    """The noise of one pass of the filter over the pictures ``indices``: an iteration of the attack, or REFINEMENT.

    iteration: of all of them, or one of each.
    Nothing is remembered between calls, so a checkpointed pass draws again what the first pass drew.
    """

    def noise(draw: Draw, t: int, x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        each = of_each(iteration, len(indices))
        keys = ([seed, index, i + 1, draw, t] for index, i in zip(indices, each, strict=True))
        pictures = [np.random.default_rng(key).standard_normal(shape, np.float32) for key in keys]
        return upload(torch.from_numpy(np.stack(pictures)), x.device).to(x.dtype)

    return noise


def of_each(iteration: int | Sequence[int], count: int) -> Sequence[int]:
    """The iteration of each of ``count`` pictures."""
    return [iteration] * count if isinstance(iteration, int) else iteration


def no_noise(draw: Draw, t: int, x: Tensor) -> Tensor:
    """For ``--sampling_stochastic False``."""
    return torch.zeros_like(x)
