"""What a run takes, before it begins: memory, by tensors without content, and calls of the U-Net; what fits.

Here ``batch_size`` and ``attack_checkpoint_backward_steps`` auto are decided.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base.memory import blaming_memory, free_bytes, in_bytes
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import AUTO, FlagError, from_dict, to_dict
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.filtering import Filter, inpaint
from ace_counterfactuals.core.method.footprint import kept_bytes, peak_bytes, without_content
from ace_counterfactuals.core.method.gradients import gradient_of, leaf
from ace_counterfactuals.core.method.noise import Draw, no_noise
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import CONFIG, read_config

FLAGS = ("batch_size", "attack_checkpoint_backward_steps")
AT_ONCE = {"cuda": 64}  # pictures that auto takes at most, by the kind of device
FEW = 16  # the same on others, where more are no faster
LATENT = {"cuda": 8}  # pictures whose time a call takes beside that of its own
SCRATCH, LOOSE = 32 * 2**20, 1.5  # bytes of kernels, and of allocators for each byte of tensors: measured on CPUs
SHARE = 0.8  # of the free memory that auto fills


@dataclass(frozen=True)
class Way:
    """How a gradient goes through T denoising steps.

    graph: steps whose graph is held at a time.  states: stored between them.  forward, backward: calls of the U-Net.
    """

    graph: int = 0
    states: int = 0
    forward: int = 0
    backward: int = 0

    @property
    def effort(self) -> int:
        """In calls forward; one backward is reckoned as two."""
        return self.forward + 2 * self.backward


def way_of(attack: AttackConfig, steps: int) -> Way:
    """Of a gradient by these settings through a filter of so many steps."""
    if not ATTACKS[attack.attack_method] or not attack.attack_joint or not steps:
        return Way()
    if attack.attack_joint_shortcut:
        return Way(forward=steps)
    if attack.attack_filter == "one-step":
        return Way(1, 0, 1, 1)
    if not attack.attack_joint_checkpoint:
        return Way(steps, 0, steps, steps)
    segment = attack.attack_checkpoint_backward_steps
    assert isinstance(segment, int)
    segments, segment = -(-steps // segment), min(segment, steps)
    return Way(segment, segments, steps + segment * (segments - 1), steps)


def calls_of(attack: AttackConfig, steps: int, iterations: int) -> tuple[int, int]:
    """Of the U-Net, forward and backward, in the first iterations of an attack; a student's are not among them."""
    way, through = way_of(attack, steps), sum(map(attack.by_model, range(iterations)))
    return through * way.forward, through * way.backward


@dataclass(frozen=True)
class Needs:
    """Bytes that a picture takes, beside the networks.

    kept: by a denoising step for its backward pass.  beside: at most while a gradient is taken, that apart.
    state: x_t.  refinement: at most.
    """

    kept: int
    beside: int
    state: int
    refinement: int

    def each(self, way: Way) -> int:
        """Bytes of tensors that a picture takes at most."""
        return max(self.beside + way.graph * self.kept + way.states * self.state, self.refinement)

    def peak(self, way: Way, pictures: int) -> int:
        """Bytes that so many pictures take at most, with what kernels and allocators take beside the tensors."""
        return SCRATCH + int(LOOSE * pictures * self.each(way))

    def fitting(self, way: Way, free: int) -> int:
        """How many pictures fit into so many free bytes, of which some are left."""
        return max(0, int((SHARE * free - SCRATCH) / (LOOSE * self.each(way))))


def needs_of(batch: Batch) -> Needs:
    """What the first picture of the batch takes, under its task.  Nothing is computed, unless a network refuses tensors
    without content: then one picture is."""
    one, weights = batch.take([0]), weights_of(batch)
    hollow = replace(one, task=replace(one.task, diffusion=deepcopy(one.task.diffusion)))  # tables keep copies
    try:
        with without_content(weights) as stand_ins:
            return measured(hollow, stand_ins + weights)
    except Exception as error:  # whatever a network raises that looks at what it computes
        notice(f"memory is measured by a gradient of one picture, since a network looks at values: {error!r:.120}")
        return measured(one, weights)


def weights_of(batch: Batch) -> list[Tensor]:
    """Those of the networks, as far as these are modules."""
    networks = (batch.task.classifier, getattr(batch.task.denoiser, "network", batch.task.denoiser))
    modules = [network for network in networks if isinstance(network, nn.Module)]
    return [tensor for module in modules for tensors in (module.parameters(), module.buffers()) for tensor in tensors]


def measured(one: Batch, weights: Sequence[Tensor]) -> Needs:
    """What a picture takes where this runs: one denoising step stands for all."""
    filter_, refiner, image, way = one.filter, one.refiner, one.image, way_of(chain(one), one.filter.steps)
    noise = still if one.task.sampling.sampling_stochastic else no_noise
    kept = 0
    if way.backward:
        top = filter_.steps
        x_t = leaf(filter_.start(image, noise))
        with torch.enable_grad():
            kept = kept_bytes(lambda: filter_.denoise(x_t, noise, first=top, last=top - 1), weights)

    def gradient() -> None:
        with torch.enable_grad():
            gradient_of(chain(one), lambda picture: one.task.classifier(picture).sum(), short(filter_), image, noise)

    taken = peak_bytes(gradient) if ATTACKS[one.task.attack.attack_method] else 0
    refined = peak_bytes(partial(inpaint, short(refiner), image, image, noise, one.task.sampling, one.region))
    return Needs(kept, max(0, taken - kept), 3 * image[:, :1].numel() * image.element_size(), refined)


def still(draw: Draw, t: int, x: Tensor) -> Tensor:
    """In place of noise, as large."""
    return torch.zeros_like(x)


def short(filter_: Filter) -> Filter:
    """Of one step at most."""
    return replace(filter_, steps=min(filter_.steps, 1))


def chain(batch: Batch) -> AttackConfig:
    """The settings of the attack without checkpointing."""
    return replace(batch.task.attack, attack_joint_checkpoint=False)


def decide(config: MainConfig, root: Path, batch: Batch | None, pictures: int) -> MainConfig:
    """The settings with numbers in place of auto: what fits into the memory that is free, and takes the least time.

    root: the experiment's folder, which keeps the batch size that it began with where kernels are deterministic.
    batch: pictures of the run, under its task, None where there are none.  pictures: that are to be explained.
    Raises FlagError where not even one picture fits.
    """
    asked = {name: value for name, value in to_dict(config).items() if name in FLAGS and value == AUTO}
    if not asked:
        return config
    with blaming_memory(next(iter(asked)), "auto: there is too little memory even to plan; free some"):
        chosen, said = (dict.fromkeys(asked, 1), "") if batch is None else fit(config, root, batch, pictures)
    notice(", ".join(f"{name} auto is {chosen[name]}" for name in asked) + said)
    return from_dict(MainConfig, to_dict(config) | {name: chosen[name] for name in asked})


def fit(config: MainConfig, root: Path, batch: Batch, pictures: int) -> tuple[dict[str, int], str]:
    """``FLAGS``, and what is to be said of the memory.  Raises FlagError."""
    needs, steps, kind = needs_of(batch), batch.filter.steps, batch.image.device.type
    free, most = free_bytes(batch.image.device), max(1, min(pictures, AT_ONCE.get(kind, FEW)))
    wanted = wanted_size(config, root)
    ways = [
        (way_of(attack, steps), attack.attack_checkpoint_backward_steps) for attack in attacks(config.attack, steps)
    ]
    fits = [(way, segment, needs.fitting(way, free)) for way, segment in ways]
    fits = [(way, segment, wanted or min(count, most)) for way, segment, count in fits if count >= (wanted or 1)]
    if not fits:
        raise too_large(config, needs.peak(min((way for way, _ in ways), key=needs.each), wanted or 1), free, wanted)

    def cost(found: tuple[Way, int, int]) -> tuple[float, int]:
        way, _, count = found
        return way.effort * (1 + LATENT.get(kind, 0) / count), -count

    way, segment, count = min(fits, key=cost)
    said = f": about {in_bytes(needs.peak(way, count))} of the {in_bytes(free)} of memory that are free"
    return {"batch_size": count, "attack_checkpoint_backward_steps": segment}, said


def wanted_size(config: MainConfig, root: Path) -> int | None:
    """The batch size that must fit, None where it may be chosen."""
    run = config.run
    if run.batch_size != AUTO:
        return run.batch_size
    began = run.cudnn_deterministic and (root / CONFIG).exists() and not run.overwrite
    return read_config(root).get("batch_size") if began else None


def attacks(attack: AttackConfig, steps: int) -> Iterator[AttackConfig]:
    """The settings with each number of steps that auto may be, in as many segments as there are steps or fewer."""
    if attack.attack_checkpoint_backward_steps != AUTO:
        yield attack
        return
    top = max(1, steps) if attack.attack_joint_checkpoint else 1
    for segment in sorted({-(-top // segments) for segments in range(1, top + 1)}):
        yield replace(attack, attack_checkpoint_backward_steps=segment)


def too_large(config: MainConfig, peak: int, free: int, wanted: int | None) -> FlagError:
    """That not even the least fits; wanted: pictures at once that it must be, None where one would do."""
    attack = config.attack
    advice = "use_checkpoint True, or free some"
    if wanted and config.run.batch_size != AUTO:
        advice = "a smaller batch_size"
    elif attack.attack_joint and not attack.attack_joint_checkpoint and attack.attack_filter == "chain":
        advice = "attack_joint_checkpoint True, or attack_filter one-step"
    elif attack.attack_joint_checkpoint and attack.attack_checkpoint_backward_steps not in (1, AUTO):
        advice = "attack_checkpoint_backward_steps auto"
    field = "batch_size" if config.run.batch_size == AUTO else "attack_checkpoint_backward_steps"
    what = f"{wanted} pictures at once do not fit: they take" if wanted else "not even one picture fits: it takes"
    room = f"about {in_bytes(peak)}, and of {in_bytes(free)} of free memory {SHARE:.0%} are used"
    return FlagError(field, f"auto: {what} {room}; give {advice}")
