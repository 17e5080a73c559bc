"""Which steps of the chain are trained on: evenly drawn, or where the loss is large (``schedule_sampler``)."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion

KEPT = 10  # losses of each step that its weight goes by
EVEN = 0.001  # part of the draws that are even in any case


class Sampler(Protocol):
    """Of the steps of a chain."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(count,) steps, and what their losses count, so that the mean is that of evenly drawn ones."""

    def learn(self, steps: np.ndarray, losses: np.ndarray) -> None:
        """From the losses (n,) of steps (n,)."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Uniform:
    """high: the number of steps."""

    def __init__(self, high: int):
        self.high = high

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(self.high, size=count), np.ones(count, np.float32)

    def learn(self, steps: np.ndarray, losses: np.ndarray) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class LossSecondMoment:
    """A step is drawn by the root of the mean square of its last losses, once each has as many of them as are kept
    (Nichol and Dhariwal 2021, eq. 18)."""

    def __init__(self, high: int):
        self.losses, self.counts = np.zeros((high, KEPT)), np.zeros(high, np.int64)

    def probabilities(self) -> np.ndarray:
        """(high,) of the steps."""
        even = np.full(len(self.counts), 1 / len(self.counts))
        if (self.counts < KEPT).any():
            return even
        roots = np.sqrt((self.losses**2).mean(1))
        return (1 - EVEN) * roots / roots.sum() + EVEN * even if roots.sum() else even

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        chances = self.probabilities()
        steps = rng.choice(len(chances), size=count, p=chances)
        return steps, (1 / (len(chances) * chances[steps])).astype(np.float32)

    def learn(self, steps: np.ndarray, losses: np.ndarray) -> None:
        for step, loss in zip(steps, losses, strict=True):
            self.losses[step] = [*self.losses[step, 1:], loss]
            self.counts[step] = min(self.counts[step] + 1, KEPT)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": torch.from_numpy(self.losses.copy()), "counts": torch.from_numpy(self.counts.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for the state of another chain."""
        losses, counts = state["losses"].double().numpy(), state["counts"].long().numpy()
        if losses.shape != self.losses.shape or counts.shape != self.counts.shape:
            raise ValueError(f"losses of {len(counts)} steps, wanted {len(self.counts)}")
        self.losses, self.counts = losses.copy(), counts.copy()


def make_sampler(name: str, high: int) -> Sampler:
    """By its name, of the steps 0 .. high - 1."""
    return Uniform(high) if name == "uniform" else LossSecondMoment(high)


def min_snr_weights(diffusion: GaussianDiffusion, gamma: float) -> np.ndarray:
    """(steps,) of the mean square error of what the network predicts, so that x_0's error counts by the ratio of
    signal to noise, but at most by ``gamma`` (Hang et al. 2023, section 3.4)."""
    signal = diffusion.alphas_cumprod.values.numpy()
    ratio = signal / (1 - signal)
    of_x_0 = {"x_0": 1.0, "noise": ratio, "v": ratio + 1}
    return np.minimum(ratio, gamma) / of_x_0[diffusion.config.predicts]
