"""Noise as a function of (seed, image index, what for): independent of batch, chunk, order and resume."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from threading import Thread

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


@dataclass(frozen=True)
class Asked:
    """One draw for the pictures ``indices``, each in an iteration of its own.  shape: (C, H, W); pinned: for CUDA."""

    seed: int
    indices: tuple[int, ...]
    each: tuple[int, ...]
    draw: Draw
    t: int
    shape: tuple[int, ...]
    pinned: bool

    def drawn(self) -> Tensor:
        """(N, C, H, W) on the CPU."""
        keys = ([self.seed, index, i + 1, self.draw, self.t] for index, i in zip(self.indices, self.each, strict=True))
        pictures = [np.random.default_rng(key).standard_normal(self.shape, np.float32) for key in keys]
        noise = torch.from_numpy(np.stack(pictures))
        return noise.pin_memory() if self.pinned else noise


def image_noise(
    seed: int,
    indices: Sequence[int],
    iteration: int | Sequence[int],
    drawn: Callable[[Asked], Tensor] = Asked.drawn,
) -> NoiseFn:
    """The noise of one pass of the filter over the pictures ``indices``: an iteration of the attack, or REFINEMENT.

    iteration: of all of them, or one of each.  drawn: who draws it.
    Nothing is remembered between calls, so a checkpointed pass draws again what the first pass drew.
    """

    def noise(draw: Draw, t: int, x: Tensor) -> Tensor:
        each, shape = of_each(iteration, len(indices)), tuple(x.shape[1:])
        asked = Asked(seed, tuple(indices), tuple(each), draw, t, shape, x.device.type == "cuda")
        return upload(drawn(asked), x.device).to(x.dtype)

    return noise


class Drawing(Thread):
    """A draw on its way; the thread ends with it, so that nobody need end it."""

    def __init__(self, asked: Asked):
        super().__init__(name="noise")
        self.asked = asked
        self.found: Tensor | None = None
        self.start()

    def run(self) -> None:
        with suppress(MemoryError, RuntimeError):  # who waits for it tries again, and tells
            self.found = self.asked.drawn()

    def drawn(self) -> Tensor:
        self.join()
        return self.asked.drawn() if self.found is None else self.found


class Ahead:
    """Draws the noise of an attack before it is asked for, while others compute: one draw is on its way at a time.

    An iteration asks for what the one before asked for, in its order.  What it asks for otherwise is drawn then.
    iterations: of the attack.
    """

    def __init__(self, iterations: int):
        self.iterations = iterations
        self.before, self.now, self.each = list[tuple[Draw, int]](), list[tuple[Draw, int]](), tuple[int, ...]()
        self.drawing: Drawing | None = None

    def __call__(self, asked: Asked) -> Tensor:
        """The noise; and begins to draw what is asked for next."""
        ready = self.drawing is not None and self.drawing.asked == asked
        found = self.drawing.drawn() if self.drawing and ready else asked.drawn()
        coming = self.coming(asked)
        self.drawing = Drawing(coming) if coming else None
        return found

    def coming(self, asked: Asked) -> Asked | None:
        """What follows, as far as that is known."""
        if asked.each != self.each:
            self.before, self.now, self.each = self.now, [], asked.each
        self.now.append((asked.draw, asked.t))
        if len(self.now) < len(self.before):
            draw, t = self.before[len(self.now)]
            return replace(asked, draw=draw, t=t)
        each = tuple(i + 1 for i in asked.each)
        if not self.before or max(each) >= self.iterations:
            return None
        draw, t = self.before[0]
        return replace(asked, draw=draw, t=t, each=each)


def of_each(iteration: int | Sequence[int], count: int) -> Sequence[int]:
    """The iteration of each of ``count`` pictures."""
    return [iteration] * count if isinstance(iteration, int) else iteration


def no_noise(draw: Draw, t: int, x: Tensor) -> Tensor:
    """For ``--sampling_stochastic False``."""
    return torch.zeros_like(x)
