"""The filter alone: how much noise the classifier's predictions survive."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ace_counterfactuals.core.method.objectives import predict, probabilities
from ace_counterfactuals.core.method.task import chain_of
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.tuning.ground import Ground, with_flags

SHARES = (0.05, 0.07, 0.1, 0.14, 0.2, 0.25, 1 / 3, 0.5)  # of the whole chain, that noise begins at
KEPT = 0.95  # of the predictions, that a filter is to leave as they are
DRAWS = 2  # passes of a filter, each with noise of its own
FEW_STEPS, MANY_STEPS = 2, 5


@dataclass(frozen=True)
class Strength:
    """An amount of noise, alone.

    share: of the whole chain, in [0, 1]; step: the same as a step of it.  kept: share of predictions that stay.
    filtered: (N, C, H, W) in [0, 1] of the first pass, on the CPU; seen: (N,) their predictions, sure: (N,) how likely.
    """

    flags: dict[str, Any]
    share: float
    step: int
    kept: float
    filtered: Tensor
    seen: list[int]
    sure: list[float]


def noise_flags(share: float, steps: int, chain: int) -> dict[str, Any]:
    """Settings of so many large denoising steps, the first of them at about ``share`` of a chain."""
    length = max(steps, min(round(1 + (steps - 1) / share), chain))
    fraction = math.ceil(1000 * steps / length) / 1000
    fraction += 0.001 * (int(fraction * length) < steps)
    return {"timestep_respacing": str(length), "sampling_time_fraction": min(1.0, round(fraction, 3))}


def share_of(config: MainConfig, ground: Ground, *, refining: bool = False) -> tuple[float, int]:
    """Where the noise of a filter begins, as a share of the whole chain and as a step of it."""
    process = ground.denoiser.process.respaced(config.sampling.timestep_respacing)
    diffusion, steps = chain_of(config.sampling, process, refining=refining)
    step = int(diffusion.timestep_map.values[steps - 1]) if steps else 0
    return step / max(1, diffusion.config.diffusion_steps - 1), step


def steps_of(ground: Ground) -> int:
    """Denoising steps of all filters that are tried: as many as the search starts with, within bounds."""
    return min(max(ground.batch.filter.steps, FEW_STEPS), MANY_STEPS)


def grid(ground: Ground) -> list[dict[str, Any]]:
    """Settings of noise, the least first."""
    chain, steps = ground.denoiser.process.config.diffusion_steps, steps_of(ground)
    found = [noise_flags(share, steps, chain) for share in SHARES]
    return [flags for i, flags in enumerate(found) if flags not in found[:i]]


@torch.no_grad()
def try_filters(ground: Ground) -> list[Strength]:
    """Of each amount of noise of the grid."""
    return [try_filter(ground, flags) for flags in grid(ground)]


def try_filter(ground: Ground, flags: dict[str, Any]) -> Strength:
    kept, pictures, logits = [], [], []
    for part in ground.parts(flags):
        for draw in range(DRAWS):
            picture = part.attacked_through(part.image, part.noise(draw)).clamp(0, 1)
            seen = part.task.classifier(picture)
            kept += (predict(seen) == part.prediction).tolist()
            if draw == 0:
                pictures.append(picture.cpu())
                logits.append(seen)
    shown = torch.cat(logits)
    share, step = share_of(with_flags(ground.config, flags), ground)
    sure = probabilities(shown).amax(1).tolist()
    return Strength(flags, share, step, sum(kept) / len(kept), torch.cat(pictures), predict(shown).tolist(), sure)


def largest(strengths: Sequence[Strength]) -> Strength:
    """That leaves KEPT of the predictions as they are; where none does, the least noise."""
    return next((one for one in reversed(strengths) if one.kept >= KEPT), strengths[0])
