"""Noise schedules and respacing: numbers only.

Tables are float64 NumPy arrays; index 0 is one step of noise.
"""

import math
from itertools import accumulate

import numpy as np

NOISE_SCHEDULES = ("linear", "cosine")


def make_betas(noise_schedule: str, diffusion_steps: int) -> np.ndarray:
    """beta_t for t = 0 .. diffusion_steps - 1, each in (0, 1).

    ``linear`` is Ho et al. 2020 stretched to any number of steps, ``cosine`` is Nichol and Dhariwal 2021, eq. 17.
    Raises ValueError for another name, and for steps so few that a beta is not below 1.
    """
    if noise_schedule == "linear":
        scale = 1000 / diffusion_steps
        betas = np.linspace(scale * 0.0001, scale * 0.02, diffusion_steps, dtype=np.float64)
        if betas[-1] >= 1:
            reason = f"diffusion_steps {diffusion_steps} gives a beta of {betas[-1]:.3g}"
            raise ValueError(f"linear with {reason}; choose at least 21 steps")
        return betas
    if noise_schedule == "cosine":

        def alpha_bar(i: int) -> float:
            return math.cos((i / diffusion_steps + 0.008) / 1.008 * math.pi / 2) ** 2

        return np.array([min(1 - alpha_bar(i + 1) / alpha_bar(i), 0.999) for i in range(diffusion_steps)])
    raise ValueError(f"{noise_schedule}: choose one of {', '.join(NOISE_SCHEDULES)}")


def respaced_steps(timestep_respacing: str, diffusion_steps: int) -> list[int]:
    """The original steps that a respaced chain keeps, ascending.

    ``''`` keeps all; ``'25'`` keeps 25, evenly spaced from the first to the last; ``'10,10,5'`` divides the chain into
    three sections and keeps so many of each; ``'ddim25'`` keeps every n-th, n the integer stride that gives 25.
    Raises ValueError for what is none of these or takes more than there is.
    """
    spec = timestep_respacing.strip()
    if not spec:
        return list(range(diffusion_steps))
    if spec.startswith("ddim"):
        count = _count(spec.removeprefix("ddim"), spec)
        for n in range(1, diffusion_steps + 1):
            steps = range(0, diffusion_steps, n)
            if len(steps) == count:
                return list(steps)
        reason = f"no integer stride takes {count} of diffusion_steps {diffusion_steps}"
        raise ValueError(f"{spec}: {reason}; choose a divisor of {diffusion_steps}")
    counts = [_count(part, spec) for part in spec.split(",")]
    size, longer = divmod(diffusion_steps, len(counts))
    kept, start = [], 0
    for i, count in enumerate(counts):
        length = size + (i < longer)
        if count > length:
            section = f"the {length} steps in section {i + 1} of diffusion_steps {diffusion_steps}"
            raise ValueError(f"{spec} takes {count} of {section}; choose at most {length}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        # Summed, not multiplied: '25' of 500 steps keeps 249, where 12 strides are 249.5 and would be rounded to 250.
        kept += [start + round(position) for position in accumulate([stride] * (count - 1), initial=0.0)]
        start += length
    return kept


def _count(text: str, spec: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"'{spec}': wanted '' (all steps), a number such as 25, a list such as 10,10,5 or ddim25")
    return int(text)


def respace_betas(betas: np.ndarray, steps: list[int]) -> np.ndarray:
    """Betas of the chain over ``steps`` alone, with the full chain's alphas_cumprod at those steps."""
    alphas_cumprod = np.cumprod(1 - betas)[steps]
    return 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
