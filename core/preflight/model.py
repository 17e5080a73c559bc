"""What ``--check True`` finds out of denoiser, filter, time and memory. Nothing here prints or writes."""

import math
import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.data.imageset import ImageSet, Sample, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.checks import check_finite, check_logits
from ace_counterfactuals.core.method.explain import make_grad_fn
from ace_counterfactuals.core.method.filtering import Filter, inpaint, step_tensor, to_diffusion
from ace_counterfactuals.core.method.noise import REFINEMENT, Draw, NoiseFn, image_noise
from ace_counterfactuals.core.method.objectives import choose_targets, predict
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.preflight.data import Budget
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import Networks, task_of

TRIAL = 8  # pictures that the filter is tried on


@dataclass(frozen=True)
class Trial:
    """A few pictures to explain, as a run would take them. target: None if untargeted.

    filter: without a network if there is none that fits the flags.
    """

    image: Tensor
    indices: list[int]
    prediction: Tensor
    target: Tensor | None
    logits: Tensor
    filter: Filter
    config: MainConfig
    networks: Networks

    @property
    def batch(self) -> Batch:
        return Batch(task_of(self.config, self.networks), self.image, self.indices, self.logits, None, self.target)

    @property
    def refiner(self) -> Filter:
        """The filter of the refinement."""
        return self.batch.refiner

    def noise(self, iteration: int) -> NoiseFn:
        """The noise that the run would draw."""
        return self.batch.noise(iteration)

    def take(self, positions: list[int]) -> "Trial":
        """The pictures at ``positions``, which may repeat."""
        target = None if self.target is None else self.target[positions]
        classes = None if self.filter.classes is None else self.filter.classes[positions]
        return replace(
            self,
            image=self.image[positions],
            indices=[self.indices[i] for i in positions],
            prediction=self.prediction[positions],
            target=target,
            logits=self.logits[positions],
            filter=replace(self.filter, classes=classes),
        )


def first_pictures(images: ImageSet) -> tuple[list[Sample], list[UnreadableImage]]:
    """The first TRIAL readable pictures among the first 4 * TRIAL, and those passed over."""
    samples, unreadable = [], []
    for item in prefetch(images, range(min(len(images), 4 * TRIAL)), 0):
        (unreadable if isinstance(item, UnreadableImage) else samples).append(item)
        if len(samples) == TRIAL:
            break
    return samples, unreadable


@torch.no_grad()
def make_trial(samples: list[Sample], config: MainConfig, networks: Networks) -> Trial:
    """The pictures with their targets and the filter.  Raises NonFiniteError if the classifier returns NaN."""
    image = torch.stack([sample.image for sample in samples]).to(networks.device)
    logits = torch.cat([networks.classifier(image[i : i + 1]) for i in range(len(image))])
    indices = [sample.index for sample in samples]
    check_logits(logits, "the original", indices)
    prediction, binary = predict(logits), logits.ndim == 1
    label = torch.tensor([sample.label for sample in samples], device=networks.device)
    target = choose_targets(prediction, label, config.data.label_target, binary=binary)
    filter_ = task_of(config, networks).filter(target if config.model.class_cond else None)
    return Trial(image, indices, prediction, target, logits, filter_, config, networks)


@dataclass(frozen=True)
class Probe:
    """Mean squared error of the predicted noise at an original step, 1 for predicting nothing.

    guess: the error of the best guess that only knows how noisy the picture is: the picture, scaled.
    """

    step: int
    error: float
    guess: float


@dataclass(frozen=True)
class DenoiserCheck:
    """probes: at the filter's first step, then at others, which may lie above it."""

    probes: tuple[Probe, ...]
    n: int
    seconds: float  # one call, a picture

    @property
    def finite(self) -> bool:
        return all(math.isfinite(probe.error) for probe in self.probes)


@torch.no_grad()
def measure_denoiser(trial: Trial, budget: Budget) -> DenoiserCheck:
    """How well the network tells noise from picture at some steps."""
    diffusion, top = trial.networks.diffusion, trial.filter.steps - 1
    tenth = min(diffusion.num_timesteps - 1, round(diffusion.num_timesteps / 10))
    steps = list(dict.fromkeys([top, top // 2, tenth, top // 4]))
    variance = to_diffusion(trial.image).square().mean().item()
    probes, seconds, n = [], math.inf, 1
    for t in steps:
        some = trial.take(list(range(n)))
        started = budget.clock()
        error = noise_error(some, t)
        seconds = min(seconds, (budget.clock() - started) / n)
        signal = diffusion.alphas_cumprod.values[t].item() * variance
        guess = signal / (signal + 1 - diffusion.alphas_cumprod.values[t].item())
        probes.append(Probe(diffusion.timestep_map.values[t].item(), error, guess))
        if seconds > budget.left:
            break
        affordable = int(budget.left / max(seconds, 1e-9) / len(steps))
        n = max(1, min(len(trial.image), affordable))
    return DenoiserCheck(tuple(probes), n, seconds)


def noise_error(trial: Trial, t: int) -> float:
    diffusion, x_0 = trial.networks.diffusion, to_diffusion(trial.image)
    steps = step_tensor(t, x_0)
    eps = image_noise(trial.config.run.seed, trial.indices, 0)(Draw.START, t, x_0)
    x_t = diffusion.q_sample(x_0, steps, eps)
    output = diffusion.denoiser_output(trial.networks.denoiser, x_t, steps, trial.filter.classes)[:, : x_0.shape[1]]
    if diffusion.config.predict_xstart:
        signal, noise = diffusion.sqrt_alphas_cumprod, diffusion.sqrt_one_minus_alphas_cumprod
        output = (x_t - signal.at(steps, x_t) * output) / noise.at(steps, x_t)
    return ((output - eps).double().square().mean() / eps.double().square().mean()).item()


@dataclass(frozen=True)
class FilterCheck:
    """The logit of the clean prediction on each picture and on the filtered picture; whether the prediction stays."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    kept: tuple[bool, ...]


@torch.no_grad()
def measure_filter(trial: Trial, call_seconds: float, budget: Budget) -> FilterCheck | None:
    """Filter some pictures as the attack's first iteration would; None if that takes longer than there is."""
    before, after, kept = [], [], []
    for i in range(len(trial.image)):
        if trial.filter.steps * call_seconds > budget.left:
            break
        one = trial.take([i])
        logits = trial.networks.classifier(one.filter(one.image, one.noise(0)))
        before.append(_logit_of(one.prediction, one.logits))
        after.append(_logit_of(one.prediction, logits))
        kept.append(predict(logits).item() == one.prediction.item())
    return FilterCheck(tuple(before), tuple(after), tuple(kept)) if before else None


def _logit_of(prediction: Tensor, logits: Tensor) -> float:
    if logits.ndim == 1:
        return (logits * (2 * prediction - 1)).item()
    return logits[0, prediction].item()


@dataclass(frozen=True)
class CostCheck:
    """gradient, refinement: seconds a picture, measured on ``batch`` pictures at once; batch 0: estimated from single
    calls of the network, since measuring would take too long.

    base, growth: bytes held before, and added by each picture of a batch.  Where loading took more than the batch
    did, growth is None and base is what loading took; None where nothing is known.
    limit: bytes of the device, or that this process may have.  out_of_memory: the batch that did not fit, or 0.
    """

    gradient: float
    refinement: float
    iterations: int
    batch: int
    wanted: int
    base: int | None = None
    growth: int | None = None
    limit: int | None = None
    out_of_memory: int = 0

    @property
    def seconds(self) -> float:
        """What a picture takes."""
        return self.iterations * self.gradient + self.refinement

    @property
    def memory(self) -> int | None:
        """Bytes that the batch that is wanted takes, networks and all."""
        if self.growth is None:
            return self.base if self.batch == self.wanted else None
        return self.base + self.wanted * self.growth

    @property
    def fits(self) -> bool:
        """Whether the batch that is wanted leaves a tenth of the memory free, as far as is known."""
        return self.memory is None or self.limit is None or self.memory < 0.9 * self.limit


def measure_cost(trial: Trial, call_seconds: float, pending: int, budget: Budget) -> CostCheck:
    """Time a gradient and the refinement: on one picture, then, warmed up, on a batch if time and memory allow.

    Raises NonFiniteError if a network returns NaN.
    """
    attack, steps = trial.config.attack, trial.filter.steps
    calls = 0 if not attack.attack_joint else 1 if attack.attack_joint_shortcut else 3 + attack.attack_joint_checkpoint
    attacked = attack.attack_method != "None"
    cost = CostCheck(
        gradient=calls * steps * call_seconds * attacked,
        refinement=trial.refiner.steps * call_seconds,
        iterations=attack.attack_iterations * attacked,
        batch=0,
        wanted=max(1, min(trial.config.run.batch_size, pending)),
        limit=memory_limit(trial.networks.device),
    )
    batch = 1
    try:
        if cost.gradient + cost.refinement > budget.left:
            return cost
        cost = measure_batch(trial, cost, 1, budget)
        batch = cost.wanted
        if cost.fits and batch * (cost.gradient + cost.refinement) < budget.left:
            cost = measure_batch(trial, cost, batch, budget)
    except torch.OutOfMemoryError:
        return replace(cost, out_of_memory=batch)
    return cost


@torch.no_grad()
def measure_batch(trial: Trial, cost: CostCheck, batch: int, budget: Budget) -> CostCheck:
    """One gradient and one refinement of ``batch`` pictures at once."""
    trial = trial.take([i % len(trial.image) for i in range(batch)])
    device, attack, sampling = trial.networks.device, trial.config.attack, trial.config.sampling
    image = changed = trial.image
    base, before = start_memory(device)
    known = cost.growth is not None
    base = cost.base if known else base  # what a first batch freed may still be held by the process
    started = budget.clock()
    if attack.attack_method != "None":
        entry = find_attack(attack.attack_method, targeted=trial.target is not None)
        grad_fn = make_grad_fn(trial.batch, entry)
        changed = (image - attack.attack_step / 255 * grad_fn(image, 0).sign()).clamp(0, 1)
        finish(device)
    attacked, noise, refiner = budget.clock(), trial.noise(REFINEMENT), trial.refiner
    refined = inpaint(refiner, image, changed, noise, sampling).counterfactual
    finish(device)
    refinement = (budget.clock() - attacked) / batch
    check_finite(refined, "the refinement", refiner, changed, noise, trial.indices)
    peak = peak_memory(device)
    if peak != before:
        growth = (peak - base) // batch
    elif known:
        growth = cost.growth
    else:
        base, growth = peak, None
    return replace(
        cost, gradient=(attacked - started) / batch, refinement=refinement, batch=batch, base=base, growth=growth
    )


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def start_memory(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes held now, and the most held so far, which CUDA counts from here; None where they are not known."""
    finish(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device), None
    statm, peak = Path("/proc/self/statm"), peak_memory(device)
    if device.type != "cpu" or not statm.exists():
        return peak, peak
    return int(statm.read_text().split()[1]) * resource.getpagesize(), peak


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held: on CUDA since ``start_memory``, on the CPU since the process started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) if device.type == "cpu" else None


def memory_limit(device: torch.device) -> int | None:
    """Bytes of the device; on the CPU of the machine, or what its control group leaves this process."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type != "cpu" or not Path("/proc/meminfo").exists():
        return None
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    group = Path("/sys/fs/cgroup/memory.max")
    allowed = group.read_text().strip() if group.exists() else "max"
    return min(total, int(allowed)) if allowed.isdecimal() else total
