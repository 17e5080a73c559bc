"""What ``--check True`` finds out of the diffusion model, the filter, time and memory."""

import math
import re
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ace_counterfactuals.core.base.memory import PROC, free_bytes, in_bytes, is_short_of_memory, read
from ace_counterfactuals.core.base.notices import in_time
from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.explain import conclude
from ace_counterfactuals.core.method.filtering import Filter, to_diffusion
from ace_counterfactuals.core.method.fit import Fit, Trial, fit
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.preflight.report import Report, part_of
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.plan import way_of

USELESS = 0.9  # of the error of a guess
FEW = 4  # pictures that say nothing of a share
FITTED, CALLS = 3, 11  # pictures that a model's flags are tried on, and calls of the network for that


@torch.no_grad()
def check_filter(report: Report, batch: Batch, config: MainConfig, end: float) -> float | None:
    """Whether the network tells noise from picture, and the classifier still knows the filtered pictures.

    Returns the seconds of one call of the network on one picture, None if it returns NaN.
    """
    filter_, lines = batch.filter, report.sections["filter"]
    own, refinement = steps_of(filter_), steps_of(batch.refiner)
    lines += [own] if own == refinement else [own, f"in the refinement {refinement}"]
    if not filter_.steps:
        return 0.0
    top, tried = filter_.steps - 1, batch.take([0])
    for _ in range(2):  # the first call takes longer
        started = time.monotonic()
        noise_error(tried, top)
        seconds = time.monotonic() - started
    if len(batch.indices) * 2 * seconds < 0.25 * (end - time.monotonic()):
        tried = batch
    errors = {t: noise_error(tried, t) for t in (top, top // 2)}
    step_of = {t: filter_.diffusion.timestep_map.values[t].item() for t in errors}
    if broken := [step_of[t] for t in errors if not math.isfinite(errors[t])]:
        cause = "half precision overflows: give use_fp16 False" if config.model.use_fp16 else "is the file whole?"
        report.problems.append(f"the diffusion model returns NaN or infinity at step {broken[0]}; {cause}")
        return None
    said = ", ".join(f"{errors[t]:.3f} at step {step_of[t]}" for t in errors)
    lines.append(f"noise prediction error {said} (1: as bad as predicting nothing)")
    useless = {t: errors[t] > USELESS * guess_error(batch, t) for t in errors}
    fitted = check_fit(report, tried.take(range(min(FITTED, len(tried.indices)))), seconds, end)
    if useless[top] and not (fitted and fitted.named):
        warm = "it may have been trained for a warm start only: lower sampling_time_fraction"
        advice = "check model_path, diffusion_steps and noise_schedule" if all(useless.values()) else warm
        where = f"at step {step_of[top]}, where the filter starts"
        report.problems.append(f"the diffusion model does not denoise these pictures {where}; {advice}")
    elif fitted and fitted.fault:
        report.problems.append(fitted.fault)
    try_predictions(report, batch, seconds, part_of(end, 0.4))
    return seconds


def check_fit(report: Report, batch: Batch, seconds: float, end: float) -> Fit | None:
    """Whether the model's flags and data are those of the pictures, where there is time to try."""
    if CALLS * len(batch.indices) * seconds > 0.4 * (end - time.monotonic()):
        report.sections["filter"].append("the model's flags not tried: it takes too long here")
        return None
    found = fit(batch)
    said = f"noised to step {found.step} and denoised at once, pictures differ by {255 * found.l1:.1f} of 255"
    report.sections["filter"].append(f"{said} (l1), {found.left:.0%} of the noise")
    return found


def try_predictions(report: Report, batch: Batch, seconds: float, end: float) -> None:
    """Filter some pictures as the first iteration of an attack would, and see whether the prediction stays."""
    kept, one_step = [], batch.task.attack.attack_filter == "one-step"
    for one in (batch.take([i]) for i in range(len(batch.indices))):
        if (1 if one_step else one.filter.steps) * seconds > end - time.monotonic():
            break
        logits = batch.task.classifier(one.attacked_through(one.image, one.noise(0)))
        kept.append(predict(logits).item() == one.prediction.item())
    lost, n = len(kept) - sum(kept), len(kept)
    tried = f"keeps {sum(kept)} of {n} predictions" if n else "predictions not tried: filtering takes too long here"
    report.sections["filter"].append(tried)
    if n >= FEW and 2 * lost > n:
        report.problems.append(
            f"the filter alone changes the prediction of {lost} of {n} pictures: the attack starts from another "
            "decision; lower sampling_time_fraction"
        )


def steps_of(filter_: Filter) -> str:
    """The filter's steps in words."""
    steps, diffusion = filter_.steps, filter_.diffusion
    if not steps:
        return "none: the share of the steps is 0"
    top = diffusion.timestep_map.values[steps - 1].item()
    return f"{steps} of {diffusion.num_timesteps} steps, from step {top} of {diffusion.config.diffusion_steps}"


def noise_error(batch: Batch, t: int) -> float:
    """Mean squared error of the noise that the network predicts at step t of the filter, 1 for predicting nothing."""
    return Trial(batch, batch.filter.diffusion, t).error(t)


def guess_error(batch: Batch, t: int) -> float:
    """The error of the best guess that only knows how noisy a picture is: the noisy picture, scaled."""
    kept = batch.filter.diffusion.alphas_cumprod.values[t].item()
    signal = kept * to_diffusion(batch.image).square().mean().item()
    return signal / (signal + 1 - kept)


@dataclass(frozen=True)
class Cost:
    """gradient, refinement: seconds a picture, measured on ``batch`` pictures at once; batch 0: estimated.

    base, growth: bytes held before, and added by each picture of a batch; 0 where that is not known.
    """

    gradient: float
    refinement: float
    batch: int = 0
    base: int = 0
    growth: int = 0

    def memory(self, batch: int) -> int:
        """Bytes that a batch takes, networks and all."""
        return self.base + batch * self.growth


def check_cost(report: Report, batch: Batch, config: MainConfig, pending: int, call_seconds: float, end: float) -> Cost:
    """Time an iteration of the attack and the refinement, on one picture, then on a batch if time and memory allow.

    call_seconds: of the network, on one picture.  Raises NonFiniteError if a network returns NaN.
    """
    flags, device, lines = config.attack, batch.image.device, report.sections["cost"]
    cost, wanted = estimate(batch, call_seconds), max(1, min(config.run.batch_size, pending))
    limit = free_bytes(device) + start_memory(device)
    saved = not flags.attack_joint or flags.attack_joint_shortcut or flags.attack_joint_checkpoint
    advice = "give a smaller batch_size" if saved else "give attack_joint_checkpoint True, or a smaller batch_size"
    for size in (1, wanted):
        if size * (cost.gradient + cost.refinement) > end - time.monotonic() or cost.memory(wanted) > 0.9 * limit:
            break
        try:
            cost = measure_batch(batch.take([i % len(batch.indices) for i in range(size)]))
        except (RuntimeError, MemoryError) as error:
            if not is_short_of_memory(error):
                raise
            report.problems.append(f"{size} pictures at once do not fit into memory; {advice}")
            break
    takes = f"about {in_bytes(cost.memory(wanted))} of {in_bytes(limit)}"
    if cost.memory(wanted) > 0.9 * limit:
        report.problems.append(f"{wanted} pictures at once take {takes} of memory; {advice}")
    iterations = flags.attack_iterations if ATTACKS[flags.attack_method] else 0
    each = iterations * cost.gradient + cost.refinement
    how = f"measured on a batch of {cost.batch}" if cost.batch else "estimated from single calls of the network"
    most = "at most " if flags.attack_stop_confidence < 1 else ""
    parts = f"{in_bytes(cost.base)} held before + {wanted} at once x {in_bytes(cost.growth)}"
    lines += [
        f"{most}{in_time(each)} a picture = {iterations} x {in_time(cost.gradient)} for the gradient "
        f"+ {in_time(cost.refinement)} for the refinement, {how} on {device.type}",
        f"{in_time(each * pending)} for the {pending} pictures left to explain",
        f"memory: {takes} = {parts}" if cost.base else "memory not measured",
    ]
    return cost


def estimate(batch: Batch, call_seconds: float) -> Cost:
    """The cost of a picture by how often each calls the network."""
    attack = batch.task.attack
    way, one = way_of(attack, batch.filter.steps), round_of(attack)
    share = sum(map(attack.by_model, range(one))) / one
    return Cost(share * way.effort * call_seconds, batch.refiner.steps * call_seconds)


def measure_batch(batch: Batch) -> Cost:
    """Explain a batch with few iterations of the attack; both parts end with a look at what the device computed."""
    n, device, rounds = len(batch.indices), batch.image.device, round_of(batch.task.attack)
    batch = replace(batch, task=replace(batch.task, attack=replace(batch.task.attack, attack_iterations=rounds)))
    base, started = start_memory(device), time.monotonic()
    found, _ = attack(batch)
    found.sum().item()
    attacked = time.monotonic()
    conclude(batch, found)
    refined = time.monotonic()
    growth = (peak_memory(device) - base) // n if base else 0
    return Cost((attacked - started) / n / rounds, (refined - attacked) / n, n, base, growth)


def round_of(attack: AttackConfig) -> int:
    """Iterations after which their costs repeat."""
    return (attack.attack_student_every or 1) if attack.attack_student else 1


def start_memory(device: torch.device) -> int:
    """Bytes held now, from which on ``peak_memory`` counts; 0 where that cannot be known."""
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the most that this process held
    except OSError:
        return 0
    return peak_memory(device)


def peak_memory(device: torch.device) -> int:
    """The most bytes held since ``start_memory``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    told = re.search(r"VmHWM:\s*(\d+) kB", read(PROC / "self/status"))  # ru_maxrss counts who started this, too
    return 1024 * (int(told[1]) if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
