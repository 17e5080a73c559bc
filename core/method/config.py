"""Settings of the attack, the filter and the refinement."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ace_counterfactuals.core.base.settings import flag, part
from ace_counterfactuals.core.method.attacks import ATTACKS

SCHEDULES = ("none", "step", "linear")

FILTERS = ("chain", "one-step")

SAME = "same"


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    attack_method: str = flag("PGD", "attack", choices=ATTACKS, aliases={"CW": "C&W"})
    attack_iterations: int = flag(50, "steps of the attack", low=1)
    attack_epsilon: float = flag(
        255.0, "radius of the L-inf ball around the picture, in 1/255 of the range; not for C&W", low=0, high=255
    )
    attack_stop_confidence: float = flag(
        1.0,
        "a picture's attack ends once the filtered picture's probability of the target (untargeted: of another class "
        "than the prediction), in a moving average, is above this; 1 never",
        low=0,
        high=1,
    )
    attack_stop_patience: int = flag(1, "iterations in a row that it must be above it", low=1)
    attack_step: float = flag(1.0, "step size, in 1/255 of the range", low=0)
    attack_joint: bool = flag(True, "attack through the diffusion model; False attacks the classifier alone")
    attack_filter: str = flag(
        "chain",
        "what the attack's gradient goes through: all steps of the filter, or the x_0 predicted at its first",
        choices=FILTERS,
    )
    attack_student: str = flag(
        "",
        "with attack_filter one-step: a student of the diffusion model (train_diffusion.py --distill True), a small "
        "network that most gradients go through in its place",
        path=True,
        result=False,
    )
    attack_student_every: int = flag(
        4,
        "with attack_student: every n-th gradient of a picture goes through the diffusion model itself; 0: none does",
        low=0,
    )
    attack_deep_every: int = flag(
        1,
        "with attack_filter chain: all levels of the U-Net are computed at every n-th of the filter's steps, and at "
        "those between the first level alone, with what the others left",
        low=1,
    )
    attack_joint_checkpoint: bool = flag(
        False, "recompute instead of keeping the graph of all denoising steps: less memory", result=False
    )
    attack_checkpoint_backward_steps: int | str = flag(
        1,
        "denoising steps between two stored states; auto: as many as memory allows",
        low=1,
        kind=part,
        result=False,
    )
    attack_joint_shortcut: bool = flag(
        False, "DiME's gradient: the one at the filtered picture, over sqrt(alphas_cumprod)"
    )
    dist_l1: float = flag(0.0, "weight of the sum of absolute changes", low=0)
    dist_l2: float = flag(0.0, "weight of the Euclidean length of the change", low=0)
    dist_schedule: str = flag(
        "none", "weight of the distances over the iterations: 1; 0 then 1; rising to 1", choices=SCHEDULES
    )

    def by_model(self, iteration: int) -> bool:
        """Whether an iteration's gradient, from 0 on, goes through the diffusion model itself and not a student."""
        every = self.attack_student_every
        return not self.attack_student or (every > 0 and iteration % every == every - 1)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    sampling_time_fraction: float = flag(
        0.1, "share of the respaced steps that the filter noises and denoises", low=0, high=1
    )
    sampling_stochastic: bool = flag(True, "draw noise; False noises by scaling alone and adds none when denoising")
    sampling_inpaint: float = flag(
        0.15,
        "pixels whose dilated change is below this share of the largest stay original; 0 keeps none",
        low=0,
        high=1,
    )
    sampling_dilation: int = flag(15, "side of the square that the mask is dilated by, odd", low=1)
    timestep_respacing: str = flag("", "steps of the respaced chain: '' (all), 25, 10,10,5 or ddim25")
    clip_denoised: bool = flag(True, "clip the predicted x_0 to [-1, 1]")
    refine_timestep_respacing: str = flag(
        SAME, f"steps of the chain that the refinement takes; '{SAME}' are those of timestep_respacing"
    )
    refine_time_fraction: float = flag(
        -1.0,
        "share of these that the refinement noises and denoises; below 0 it is sampling_time_fraction",
        low=-1,
        high=1,
    )

    @property
    def of_refinement(self) -> "SamplingConfig":
        """The refinement's settings, its steps where those of the attack's filter are."""
        return SamplingConfig(**by_itself(vars(self)))


OF_REFINEMENT = {
    "refine_timestep_respacing": "timestep_respacing",
    "refine_time_fraction": "sampling_time_fraction",
}
"""Setting of the refinement -> that of the attack's filter, which it stands for where there is no attack."""


def by_itself(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a refinement without an attack, its steps where those of the attack's filter were."""
    own = {name: flags[name] for name in OF_REFINEMENT if is_own(flags.get(name))}
    left = {name: value for name, value in flags.items() if name not in OF_REFINEMENT}
    return {**left, **{OF_REFINEMENT[name]: value for name, value in own.items()}}


def is_own(value: Any) -> bool:
    """Whether the refinement has a value of its own, or several, and does not take the attack's."""
    first = value[0] if isinstance(value, tuple) else value
    return first not in (None, SAME) and not (isinstance(first, float) and first < 0)
