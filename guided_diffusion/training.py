"""The training loop of a diffusion model: one process, resumable, the same whenever it is resumed.

Everything random in a step (which pictures, t, noise) is a function of the seed and the step's number, so that a
resumed run sees what an undisturbed one would have seen.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion

Batch = tuple[Tensor, Tensor | None]
"""Pictures (N, C, H, W) in [-1, 1], and classes or None."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """``lr`` falls linearly to 0 over ``lr_anneal_steps``, 0 keeping it; ``init_step`` and later steps of the chain
    are never drawn, which makes a model that denoises from a warm start alone."""

    batch_size: int
    seed: int = 0
    lr: float = 1e-4
    weight_decay: float = 0.0
    lr_anneal_steps: int = 0
    ema_rate: float = 0.9999
    microbatch: int = -1
    init_step: int | None = None
    precision: torch.dtype = torch.float32


class Trainer:
    """Model, moving average and optimiser after ``step`` steps."""

    def __init__(self, model: nn.Module, diffusion: GaussianDiffusion, options: TrainingOptions):
        self.model = model.train()
        self.diffusion = diffusion
        self.options = options
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        self.step = 0

    def train(self, batch: Callable[[int], Batch], until: int) -> Iterator[dict[str, float]]:
        """Take steps until ``until``, yielding the mean of each loss over the step's pictures after each one."""
        while self.step < until:
            x_0, y = batch(self.step)
            losses = self._losses_and_gradient(x_0, y)
            self._anneal()
            self.optimizer.step()
            self._average()
            self.step += 1
            yield losses

    def _losses_and_gradient(self, x_0: Tensor, y: Tensor | None) -> dict[str, float]:
        options, total = self.options, {}
        rng = np.random.default_rng([options.seed, self.step])
        high = min(options.init_step or self.diffusion.num_timesteps, self.diffusion.num_timesteps)
        t = torch.from_numpy(rng.integers(high, size=len(x_0))).to(x_0.device)
        eps = torch.from_numpy(rng.standard_normal(tuple(x_0.shape), np.float32)).to(x_0)
        torch.manual_seed(int(rng.integers(2**63)))  # dropout's masks belong to the step, too
        size = len(x_0) if options.microbatch < 1 else options.microbatch
        self.optimizer.zero_grad(set_to_none=True)
        for i in range(0, len(x_0), size):
            part = slice(i, i + size)
            with autocast(x_0.device, options.precision):
                classes = None if y is None else y[part]
                losses = self.diffusion.training_losses(self.model, x_0[part], t[part], eps[part], classes)
            (losses["loss"].sum() / len(x_0)).backward()
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value.sum().item() / len(x_0)
        if not np.isfinite(total["loss"]):
            raise FloatingPointError(f"the loss is {total['loss']} at step {self.step}; try a smaller lr")
        return total

    def _anneal(self) -> None:
        if self.options.lr_anneal_steps:
            left = max(0.0, 1 - self.step / self.options.lr_anneal_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.options.lr * left

    @torch.no_grad()
    def _average(self) -> None:
        for average, value in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            average.lerp_(value, 1 - self.options.ema_rate)

    def state_dict(self) -> dict:
        """All that continuing needs beside the two networks."""
        return {"step": self.step, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Continue where ``state_dict`` was taken."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])


def autocast(device: torch.device, precision: torch.dtype):
    """Mixed precision, or nothing in float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def shuffled(count: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """step -> the positions of its pictures, going through a new permutation of ``range(count)`` every epoch."""
    permutations: dict[int, np.ndarray] = {}

    def position(draw: int) -> int:
        epoch, place = divmod(draw, count)
        if epoch not in permutations:
            permutations.pop(epoch - 2, None)
            permutations[epoch] = np.random.default_rng([seed, epoch]).permutation(count)
        return permutations[epoch][place]

    def positions(step: int) -> np.ndarray:
        return np.array([position(draw) for draw in range(step * batch_size, (step + 1) * batch_size)])

    return positions


@torch.no_grad()
def sample(model: nn.Module, diffusion: GaussianDiffusion, shape: tuple[int, ...], *, seed: int, y=None) -> Tensor:
    """Draw pictures in [-1, 1] from pure noise by ancestral sampling."""
    device = next(model.parameters()).device
    rng = np.random.default_rng(seed)

    def noise() -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).to(device)

    x_t = noise()
    for i in reversed(range(diffusion.num_timesteps)):
        t = torch.full((shape[0],), i, device=device)
        posterior = diffusion.p_mean_variance(model, x_t, t, y)
        x_t = posterior.mean
        if i > 0:
            x_t = x_t + torch.exp(0.5 * posterior.log_variance) * noise()
    return x_t
