"""What an explanation is made with, networks and settings, and the pictures that it is asked of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.method.checks import check_logits, check_pictures, check_region, check_target
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import NoiseFn, image_noise, no_noise
from ace_counterfactuals.core.method.objectives import choose_targets, predict
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import Denoiser, GaussianDiffusion

Classifier = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] -> logits, (N,) if binary and (N, K) for K classes"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The networks and settings that pictures are explained with.

    diffusion: already respaced as ``sampling`` says of the attack's filter.  label_target: see ``choose_targets``.
    class_cond: the denoiser takes the target as its class.  seed: of all noise.
    Raises FlagError for steps of the filter or the refinement that there are not.
    """

    classifier: Classifier
    denoiser: Denoiser
    diffusion: GaussianDiffusion
    attack: AttackConfig = AttackConfig()
    sampling: SamplingConfig = SamplingConfig()
    label_target: int = -1
    class_cond: bool = False
    seed: int = 4

    def __post_init__(self) -> None:
        for refining in (False, True):  # now, and not after a long attack
            chain_of(self.sampling, self.diffusion, refining=refining)

    def filter(self, classes: Tensor | None = None, *, refining: bool = False) -> Filter:
        """The attack's filter, or the refinement's.  classes: (N,), which a class-conditional model denoises to."""
        diffusion, steps = chain_of(self.sampling, self.diffusion, refining=refining)
        return Filter(diffusion, self.denoiser, steps, classes)


def chain_of(
    sampling: SamplingConfig, diffusion: GaussianDiffusion, *, refining: bool
) -> tuple[GaussianDiffusion, int]:
    """The respaced chain of the attack's filter, or of the refinement's, and how many of its steps that takes.

    diffusion: that of the attack.  Raises FlagError for a respacing that is none and for less than one step.
    """
    own = sampling.of_refinement if refining else sampling
    other_chain = own.timestep_respacing != sampling.timestep_respacing
    if other_chain:
        with blaming("refine_timestep_respacing"):
            diffusion = diffusion.respaced(own.timestep_respacing)
    other_share = own.sampling_time_fraction != sampling.sampling_time_fraction
    field = "refine_time_fraction" if other_chain or other_share else "sampling_time_fraction"
    return diffusion, filter_steps(own, diffusion, field)


def filter_steps(sampling: SamplingConfig, diffusion: GaussianDiffusion, field: str = "sampling_time_fraction") -> int:
    """T: the share ``sampling_time_fraction`` of the respaced steps, rounded down; 0 only if the share is.

    field: the setting that the share was taken from.  Raises FlagError for a share of less than one step.
    """
    fraction, respaced = sampling.sampling_time_fraction, diffusion.num_timesteps
    steps = int(fraction * respaced)
    if steps == 0 and fraction > 0:
        reason = f"of {respaced} respaced steps is less than one step; choose at least {1 / respaced:.3g}"
        raise FlagError(field, f"{fraction} {reason}, or a chain of more steps")
    return steps


@dataclass(frozen=True)
class Batch:
    """N pictures that are explained together.

    image: (N, 3, H, W) in [0, 1].  indices: the numbers of the pictures, which their noise depends on.
    logits: the classifier's.  region: (N or 1, 1, H, W) bool, where a picture may change.
    target: (N,) int64, None if untargeted.
    """

    task: Task
    image: Tensor
    indices: list[int]
    logits: Tensor
    region: Tensor | None = None
    target: Tensor | None = None

    @property
    def prediction(self) -> Tensor:
        """(N,) int64."""
        return predict(self.logits)

    @cached_property
    def filter(self) -> Filter:
        return self.task.filter(self.target if self.task.class_cond else None)

    @cached_property
    def refiner(self) -> Filter:
        """The filter of the refinement."""
        return self.task.filter(self.target if self.task.class_cond else None, refining=True)

    def noise(self, iteration: int) -> NoiseFn:
        """The noise of one pass of the filter: of an iteration of the attack, from 0 on, or of REFINEMENT."""
        if not self.task.sampling.sampling_stochastic:
            return no_noise
        return image_noise(self.task.seed, self.indices, iteration)

    def take(self, places: Sequence[int]) -> "Batch":
        """The pictures at these places, which may repeat."""
        places = list(places)
        whole = self.region is None or len(self.region) == 1
        return replace(
            self,
            image=self.image[places],
            indices=[self.indices[i] for i in places],
            logits=self.logits[places],
            region=self.region if whole else self.region[places],
            target=None if self.target is None else self.target[places],
        )

    def aimed_at(self, target: Tensor | None) -> "Batch":
        """The batch with this target.  Raises ValueError for one outside the classifier's outputs."""
        check_target(target, self.logits)
        return replace(self, target=target)


@torch.no_grad()
def judge(image: Tensor, task: Task, indices: list[int] | None = None, region: Tensor | None = None) -> Batch:
    """Pictures with the classifier's decisions, still without a target.

    indices: default 0 .. N - 1.  Raises ValueError for what are no pictures and for a region of another shape,
    NonFiniteError if the classifier returns NaN.
    """
    check_pictures(image)
    check_region(region, image)
    indices = list(range(len(image))) if indices is None else indices
    logits = task.classifier(image)
    check_logits(logits, "the original", indices)
    return Batch(task, image, indices, logits, region)


def prepare(
    image: Tensor,
    task: Task,
    *,
    label: Tensor | None = None,
    indices: list[int] | None = None,
    region: Tensor | None = None,
) -> Batch:
    """Pictures with the targets that the task gives them.  label: (N,), -1 where unknown, which is the default."""
    batch = judge(image, task, indices, region)
    label = torch.full_like(batch.prediction, -1) if label is None else label
    return batch.aimed_at(choose_targets(batch.prediction, label, task.label_target, binary=batch.logits.ndim == 1))
