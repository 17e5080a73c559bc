"""The training loop of a diffusion model: one process, resumable, the same whenever it is resumed.

Everything random in a step (which pictures, t, noise) is a function of the seed and the step's number, so that a
resumed run sees what an undisturbed one would have seen.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import Draw
from ace_counterfactuals.core.training.config import TrainingConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.unet import UNetModel

Batch = tuple[Tensor, Tensor | None]
"""Pictures (N, C, H, W) in [-1, 1], and classes or None."""


class Trainer:
    """Model, moving average and optimiser after ``step`` steps.  precision: of the forward pass."""

    def __init__(
        self,
        model: UNetModel,
        diffusion: GaussianDiffusion,
        config: TrainingConfig,
        *,
        seed: int,
        precision: torch.dtype = torch.float32,
    ):
        self.model = model.train()
        self.diffusion, self.config, self.seed, self.precision = diffusion, config, seed, precision
        self.ema: UNetModel = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.step = 0

    def train(self, batch: Callable[[int], Batch], until: int) -> Iterator[dict[str, float]]:
        """Take steps until ``until``, yielding the mean of each loss over the step's pictures after each one.

        batch: step -> its pictures, on any device.  Raises FloatingPointError where the loss is no number.
        """
        while self.step < until:
            losses = self._losses_and_gradient(*batch(self.step))
            if self.config.lr_anneal_steps:
                left = max(0.0, 1 - self.step / self.config.lr_anneal_steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.config.lr * left
            self.optimizer.step()
            self._average()
            self.step += 1
            yield losses

    def _losses_and_gradient(self, x_0: Tensor, y: Tensor | None) -> dict[str, float]:
        config, steps = self.config, self.diffusion.num_timesteps
        device = next(self.model.parameters()).device
        x_0, y = x_0.to(device), None if y is None else y.to(device)
        rng = np.random.default_rng([self.seed, self.step])
        high = steps if config.init_step < 1 else min(config.init_step, steps)
        t = torch.from_numpy(rng.integers(high, size=len(x_0))).to(device)
        eps = torch.from_numpy(rng.standard_normal(tuple(x_0.shape), np.float32)).to(x_0)
        torch.manual_seed(int(rng.integers(2**63)))  # dropout's masks belong to the step, too
        size = len(x_0) if config.microbatch < 1 else config.microbatch
        total: dict[str, float] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for i in range(0, len(x_0), size):
            part = slice(i, i + size)
            half = self.precision != torch.float32
            with torch.autocast(device.type, self.precision) if half else nullcontext():
                classes = None if y is None else y[part]
                losses = self.diffusion.training_losses(self.model, x_0[part], t[part], eps[part], classes)
            (losses["loss"].sum() / len(x_0)).backward()
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value.sum().item() / len(x_0)
        if not np.isfinite(total["loss"]):
            raise FloatingPointError(f"the loss is {total['loss']} at step {self.step}; try a smaller lr")
        return total

    @torch.no_grad()
    def _average(self) -> None:
        rate = self.config.ema_rate
        if self.config.ema_warmup:  # else a short training's average is of its beginning
            rate = min(rate, (1 + self.step) / (10 + self.step))
        for average, value in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            average.lerp_(value, 1 - rate)


def shuffled(count: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """step -> the positions of its pictures, going through a new permutation of ``range(count)`` every epoch."""

    @lru_cache(maxsize=2)
    def permutation(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(count)

    def positions(step: int) -> np.ndarray:
        draws = range(step * batch_size, (step + 1) * batch_size)
        return np.array([permutation(draw // count)[draw % count] for draw in draws])

    return positions


def mirroring(seed: int, step: int, count: int) -> np.ndarray:
    """(count,) bool: which pictures of a step are to be mirrored, half of them."""
    return np.random.default_rng([seed, step, 1]).random(count) < 0.5


@torch.no_grad()
def sample(
    model: nn.Module, diffusion: GaussianDiffusion, shape: tuple[int, ...], *, seed: int, y: Tensor | None = None
) -> Tensor:
    """Draw pictures in [-1, 1] from pure noise by ancestral sampling."""
    rng = np.random.default_rng(seed)

    def noise(draw: Draw, t: int, x: Tensor) -> Tensor:
        return torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32)).to(x)

    chain = Filter(diffusion, model, diffusion.num_timesteps, y)
    x_t = noise(Draw.START, chain.steps, torch.empty(shape, device=next(model.parameters()).device))
    return chain.denoise(x_t, noise)
