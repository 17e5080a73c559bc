"""Noise as a function of (seed, image index, what for): independent of batch, chunk, order and resume."""

from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Draw(IntEnum):
    """What a draw inside one pass of the filter is for."""

    START = 0  # the q_sample that the pass starts from
    POSTERIOR = 1  # the noise added after a reverse step
    KEPT = 2  # the q_sample of the original pixels that an inpainting pass puts back


NoiseFn = Callable[[Draw, int, Tensor], Tensor]
"""(what for, step t, x) -> standard normal noise of x's shape, type and device, a picture at a time."""

REFINEMENT = -1


def image_noise(seed: int, indices: list[int], iteration: int) -> NoiseFn:
    """The noise of one pass of the filter over the pictures ``indices``: an iteration of the attack, or REFINEMENT.

    Nothing is remembered between calls, so a checkpointed pass draws again what the first pass drew.
    """

    def noise(draw: Draw, t: int, x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        keys = ([seed, index, iteration + 1, draw, t] for index in indices)
        pictures = [np.random.default_rng(key).standard_normal(shape, np.float32) for key in keys]
        return torch.from_numpy(np.stack(pictures)).to(x)

    return noise


def no_noise(draw: Draw, t: int, x: Tensor) -> Tensor:
    """For ``--sampling_stochastic False``."""
    return torch.zeros_like(x)
