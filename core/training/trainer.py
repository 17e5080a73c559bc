"""The training loop of a diffusion model: resumable, the same whenever it is resumed, and over however many processes.

Everything random in a step (which pictures, t, noise) is a function of the seed, the step's number and a picture's
place in the batch of all processes, so that a resumed run sees what an undisturbed one would have seen.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.training import parallel
from ace_counterfactuals.core.training.config import TrainingConfig, ema_rates
from ace_counterfactuals.core.training.steps import make_sampler, min_snr_weights
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from ace_counterfactuals.models.compiled import compile_calls
from ace_counterfactuals.models.student import Student

Batch = tuple[Tensor, Tensor | None]
"""Pictures (N, C, H, W) in [-1, 1], and classes or None: this process's part."""
Network: TypeAlias = UNetModel | Student
PARTS = ("loss", "mse", "vb")
QUARTERS = tuple(f"loss_q{i}" for i in range(4))
"""The mean loss of the steps of each quarter of the chain, from the least noise on, of those that were drawn"""


class Process(Protocol):
    """What a network learns: its losses at each step t, such as those of a ``GaussianDiffusion``."""

    num_timesteps: int

    def training_losses(
        self, model: Any, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None
    ) -> dict[str, Tensor]:
        """(N,) each."""


class Trainer:
    """Model, moving averages and optimiser after ``step`` steps.

    precision: of the forward pass.  averages: by rate; those that are not given begin as the model.
    """

    def __init__(
        self,
        model: Network,
        diffusion: Process,
        config: TrainingConfig,
        *,
        seed: int,
        precision: torch.dtype = torch.float32,
        averages: Mapping[float, Network] | None = None,
    ):
        self.model = model.train()
        self.diffusion, self.config, self.seed, self.precision = diffusion, config, seed, precision
        self.emas: dict[float, Network] = {
            rate: (averages or {}).get(rate) or copy.deepcopy(model) for rate in ema_rates(config.ema_rate)
        }
        for ema in self.emas.values():
            ema.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        if config.compile:
            compile_calls(model, "the network")
        self.network = parallel.spread(model, self.emas.values(), way=config.dist)
        fused = self.device.type == "cuda" or None
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=fused
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        steps = diffusion.num_timesteps if config.init_step < 1 else min(config.init_step, diffusion.num_timesteps)
        self.sampler = make_sampler(config.schedule_sampler, steps)
        if config.min_snr_gamma:
            assert isinstance(diffusion, GaussianDiffusion), "nothing else has it among its flags"
            weights, kind = min_snr_weights(diffusion, config.min_snr_gamma), next(model.parameters()).dtype
            self.snr_weights = torch.from_numpy(weights).to(kind).to(self.device)
        self.step = 0

    @property
    def rates(self) -> list[float]:
        """Of the moving averages."""
        return list(self.emas)

    @property
    def ema(self) -> Network:
        """The first of the moving averages."""
        return next(iter(self.emas.values()))

    def state_dict(self) -> dict[str, Any]:
        """What there is beside the weights, the optimiser's state on the first process alone."""
        tree = {"step": self.step, "optimizer": parallel.state_of(self.optimizer, self.model)}
        further = {"scaler": self.scaler.state_dict(), "sampler": self.sampler.state_dict()}
        return tree | {name: state for name, state in further.items() if state}

    def load_state_dict(self, tree: Mapping[str, Any], emas: Mapping[float, dict[str, Any]]) -> None:
        """The same, and averages by rate.  Raises KeyError, TypeError, ValueError, ... for what is none."""
        parallel.take_state(self.optimizer, self.model, tree["optimizer"])
        for rate, weights in emas.items():
            parallel.take_weights(self.emas[rate], weights)
        for name, part in (("scaler", self.scaler), ("sampler", self.sampler)):
            if name in tree:
                part.load_state_dict(tree[name])

    def train(self, batch: Callable[[int], Batch], until: int) -> Iterator[dict[str, float]]:
        """Take steps until ``until``, yielding the mean of each loss over the step's pictures after each one, the
        gradient's norm, and the loss of each of QUARTERS that was drawn.

        batch: step -> its pictures, on any device.  Raises FloatingPointError where the loss is no number.
        """
        config = self.config
        while self.step < until:
            losses = self._losses_and_gradient(*batch(self.step))
            if config.lr_anneal_steps or config.lr_warmup_steps:
                rising = min(1.0, (self.step + 1) / config.lr_warmup_steps) if config.lr_warmup_steps else 1.0
                left = max(0.0, 1 - self.step / config.lr_anneal_steps) if config.lr_anneal_steps else 1.0
                for group in self.optimizer.param_groups:
                    group["lr"] = config.lr * left * rising
            quarters = {name: losses.pop(name) for name in QUARTERS if name in losses}
            losses |= self._clipped()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self._average()
            self.step += 1
            yield losses | quarters

    def _losses_and_gradient(self, x_0: Tensor, y: Tensor | None) -> dict[str, float]:
        count, begin = self._place(len(x_0))
        own, missing = slice(begin, begin + len(x_0)), self._missing(len(x_0))
        rng = np.random.default_rng([self.seed, self.step])
        steps, weights = (drawn[own] for drawn in self.sampler.draw(rng, count))
        eps = rng.standard_normal((count, *x_0.shape[1:]), np.float32)[own]
        # Dropout's masks belong to the step, too, and each process has its own.
        torch.manual_seed((int(rng.integers(2**63)) + parallel.rank()) % 2**63)
        drawn = [torch.from_numpy(steps), *(torch.from_numpy(value).to(x_0.dtype) for value in (weights, eps))]
        batch = [filled(value, missing).to(self.device) for value in (x_0, *drawn, *([] if y is None else [y]))]
        total: dict[str, float] = {}
        each = []
        size = len(batch[0]) if self.config.microbatch < 1 else self.config.microbatch
        self.optimizer.zero_grad(set_to_none=True)
        for i in range(0, len(batch[0]), size):
            x, t, weight, noise, *classes = (value[i : i + size] for value in batch)
            with self._syncing(i + size >= len(batch[0])):
                losses = self._losses(x, t, noise, *classes)
                weighted = {name: value * weight for name, value in losses.items()}
                # The mean over the processes is that of the whole batch.
                self.scaler.scale(weighted["loss"].sum() / (count / parallel.size())).backward()
            for name, value in weighted.items():
                total[name] = total.get(name, 0.0) + value.sum().item() / count
            each.append(losses["loss"].detach())
        return self._told(total, steps, torch.cat(each)[: len(steps)].cpu().double().numpy())

    def _losses(self, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """(N,) each."""
        half = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision) if half else nullcontext():
            losses = self.diffusion.training_losses(self.network, x_0, t, eps, y)
        if self.config.min_snr_gamma and "mse" in losses:
            losses["mse"] = losses["mse"] * self.snr_weights.to(losses["mse"])[t]
            losses["loss"] = losses["mse"] + losses.get("vb", 0.0)
        return losses

    def _place(self, own: int) -> tuple[int, int]:
        """How many pictures of the step all processes have, and how many of them come before this one's."""
        counts = torch.zeros(parallel.size(), dtype=torch.float64)
        counts[parallel.rank()] = own
        found = [int(count) for count in parallel.summed(counts)]
        if not sum(found):
            raise FlagError("data_dir", f"no picture of step {self.step} can be read")
        return sum(found), sum(found[: parallel.rank()])

    def _missing(self, own: int) -> int:
        """In place of how many pictures this process computes with nothing, so that all take the same passes."""
        return self.config.batch_size // parallel.size() - own if parallel.size() > 1 else 0

    def _syncing(self, last: bool) -> AbstractContextManager[None]:
        """Within, gradients are gathered from the processes if it is the last pass of a step."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        return (
            nullcontext() if last or not isinstance(self.network, DistributedDataParallel) else self.network.no_sync()
        )

    def _told(self, total: dict[str, float], steps: np.ndarray, each: np.ndarray) -> dict[str, float]:
        """The losses of all processes.  each: those of this one's pictures."""
        quarter = np.minimum(4 * steps // self.diffusion.num_timesteps, 3)
        sums = [np.bincount(quarter, weights, 4) for weights in (each, np.ones_like(each))]
        values = parallel.summed(torch.tensor([*total.values(), *np.concatenate(sums)], dtype=torch.float64)).tolist()
        losses = dict(zip(total, values, strict=False))
        if not np.isfinite(losses["loss"]):
            raise FloatingPointError(f"the loss is {losses['loss']} at step {self.step}; try a smaller lr")
        if self.config.schedule_sampler != "uniform":
            for one in parallel.gathered((steps, each)):
                self.sampler.learn(*one)
        quarters = zip(QUARTERS, values[-8:-4], values[-4:], strict=True)
        return losses | {name: value / count for name, value, count in quarters if count}

    def _clipped(self) -> dict[str, float]:
        """The norm of the gradient, which is then at most ``grad_clip``; {} where half precision was left by it, and
        the step is not taken."""
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.model.parameters())
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        value = (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
        if not np.isfinite(value):
            if not self.scaler.is_enabled():
                raise FloatingPointError(f"the gradient is {value} at step {self.step}; try a smaller lr")
            return {}
        if self.config.grad_clip:
            clip_grads_with_norm_(parameters, self.config.grad_clip, norm)
        return {"grad_norm": value}

    def _average(self) -> None:
        values = parallel.local(self.model.parameters())
        for given, ema in self.emas.items():
            # Else a short training's average is of its beginning.
            rate = min(given, (1 + self.step) / (10 + self.step)) if self.config.ema_warmup else given
            get_ema_multi_avg_fn(rate)(parallel.local(ema.parameters()), values, None)


def filled(values: Tensor, missing: int) -> Tensor:
    """With so many rows of nothing behind."""
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing else values


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
