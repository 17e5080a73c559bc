"""What an explanation is made with, networks and settings, and the pictures that it is asked of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ace_counterfactuals.core.base.runtime import upload
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.method.checks import check_logits, check_pictures, check_region, check_target
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import Asked, NoiseFn, image_noise, no_noise
from ace_counterfactuals.core.method.objectives import choose_targets, predict
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import Denoiser, GaussianDiffusion

SAME_NOISE = 0.002  # of alphas_cumprod, more than half precision rounds
Classifier = Callable[[Tensor], Tensor]
"""(N, C, H, W) in [0, 1] -> logits, (N,) if binary and (N, K) for K classes"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The networks and settings that pictures are explained with.

    diffusion: already respaced as ``sampling`` says of the attack's filter.  label_target: see ``choose_targets``.
    class_cond: the denoiser takes the target as its class.  seed: of all noise.
    Raises FlagError for steps of the filter or the refinement that there are not, and for a student of other noise.
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
        student = getattr(self.denoiser, "student", None)
        if self.attack.attack_student and student is not None:
            check_noise(self.attack.attack_student, student.signal, *chain_of(self.sampling, self.diffusion))


def chain_of(
    sampling: SamplingConfig, diffusion: GaussianDiffusion, *, refining: bool = False
) -> tuple[GaussianDiffusion, int]:
    """The respaced chain of the attack's filter, or of the refinement's, and T: how many of its steps that takes.

    diffusion: the chain of the attack's filter.  T is the share of the steps rounded down, 0 only if the share is.
    Raises FlagError for a respacing that is none and for a share of less than one step.
    """
    own = sampling.of_refinement if refining else sampling
    other_chain = own.timestep_respacing != sampling.timestep_respacing
    if other_chain:
        try:
            diffusion = diffusion.respaced(own.timestep_respacing)
        except FlagError as error:
            raise FlagError("refine_timestep_respacing", error.reason) from None
    share, respaced = own.sampling_time_fraction, diffusion.num_timesteps
    steps = int(share * respaced)
    if steps == 0 and share > 0:
        inherited = share == sampling.sampling_time_fraction and not other_chain
        least = f"choose at least {1 / respaced:.3g}, or a chain of more steps"
        raise FlagError(
            "sampling_time_fraction" if inherited else "refine_time_fraction",
            f"{share} of {respaced} respaced steps is less than one step; {least}",
        )
    return diffusion, steps


def check_noise(path: str, signal: Tensor, diffusion: GaussianDiffusion, steps: int) -> None:
    """Raises FlagError where the filter's last step is not the one that the student was trained at."""
    found, wanted = signal.item(), diffusion.alphas_cumprod.values[steps - 1].item() if steps else 1.0
    if abs(wanted - found) > SAME_NOISE:
        said = f"was trained where alphas_cumprod is {found:.3f}, but at the filter's last step it is {wanted:.3f}"
        advice = "give the timestep_respacing and sampling_time_fraction of its training"
        raise FlagError("attack_student", f"{path} {said}; {advice}")


@dataclass(frozen=True)
class Batch:
    """N pictures that are explained together.

    image: (N, C, H, W) in [0, 1], C 1 or 3.  indices: the numbers of the pictures, which their noise depends on.
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
        """The attack's."""
        return self._filter(refining=False)

    def attacked_through(self, image: Tensor, noise: NoiseFn) -> Tensor:
        """Pictures as the attack shows them to the classifier."""
        return (self.filter.predict if self.task.attack.attack_filter == "one-step" else self.filter)(image, noise)

    @cached_property
    def refiner(self) -> Filter:
        """The refinement's filter."""
        return self._filter(refining=True)

    def _filter(self, *, refining: bool) -> Filter:
        diffusion, steps = chain_of(self.task.sampling, self.task.diffusion, refining=refining)
        classes = self.target if self.task.class_cond else None
        own, wanted = self.image.shape[1], getattr(self.task.denoiser, "channels", self.image.shape[1])
        if own > wanted:
            raise ValueError(f"the diffusion model is of pictures of {wanted} channel, but these have {own}")
        student = None if refining else getattr(self.task.denoiser, "student", None)
        every = 1 if refining else self.task.attack.attack_deep_every
        denoiser = self.task.denoiser
        return Filter(diffusion, denoiser, steps, classes, grey=own < wanted, student=student, deep_every=every)

    def noise(self, iteration: int | Sequence[int], drawn: Callable[[Asked], Tensor] = Asked.drawn) -> NoiseFn:
        """The noise of one pass of the filter: of an iteration of the attack, from 0 on, or one of each picture, or of
        REFINEMENT.  drawn: who draws it."""
        if not self.task.sampling.sampling_stochastic:
            return no_noise
        return image_noise(self.task.seed, self.indices, iteration, drawn)

    def take(self, places: Sequence[int]) -> "Batch":
        """The pictures at these places, which may repeat."""
        places, region = list(places), self.region
        if places == [*range(len(self.indices))]:
            return self
        if region is not None and len(region) > 1:
            region = rows(region, places)
        return replace(
            self,
            image=rows(self.image, places),
            indices=[self.indices[i] for i in places],
            logits=rows(self.logits, places),
            region=region,
            target=None if self.target is None else rows(self.target, places),
        )

    def joined(self, other: "Batch") -> "Batch":
        """The other's pictures, of the same task, after these."""
        both = (self, other)
        masks = [b.region.expand(len(b.image), -1, -1, -1) for b in both if b.region is not None]
        targets = [b.target for b in both if b.target is not None]
        return replace(
            self,
            image=torch.cat([b.image for b in both]),
            indices=self.indices + other.indices,
            logits=torch.cat([b.logits for b in both]),
            region=torch.cat(masks) if masks else None,
            target=torch.cat(targets) if targets else None,
        )

    def aimed_at(self, target: Tensor | None) -> "Batch":
        """The batch with this target.  Raises ValueError for one outside the classifier's outputs."""
        check_target(target, self.logits)
        return replace(self, target=target)

    def aimed(self, label: Tensor | None = None) -> "Batch":
        """The batch with the targets that its task gives it.  label: (N,), -1 where unknown, which is the default."""
        label = torch.full_like(self.prediction, -1) if label is None else label
        binary = self.logits.ndim == 1
        return self.aimed_at(choose_targets(self.prediction, label, self.task.label_target, binary=binary))


def rows(values: Tensor, places: Sequence[int]) -> Tensor:
    """Those of (N, ...) at these places, which may repeat."""
    return values[upload(torch.tensor(places), values.device)]


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
