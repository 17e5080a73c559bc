"""The report of ``--check True``: from what was measured to problems, and to text."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.evaluation.metrics.intervals import wilson
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.preflight.data import ClassifierCheck, DiskCheck, PictureCheck
from ace_counterfactuals.core.preflight.model import CostCheck, DenoiserCheck, FilterCheck, Trial
from ace_counterfactuals.core.runs.config import MainConfig

RARE = 0.001  # an accident of this probability counts as none
LIKELY = 0.05
USELESS = 0.9  # of the error of a guess
FEW = 4  # pictures that say nothing of a share


@dataclass
class Report:
    """What was found; None is what could not be measured. faults: complaints of what was loaded, as they came."""

    config: MainConfig
    device: torch.device
    faults: list[str] = field(default_factory=list)
    pictures: PictureCheck | None = None
    unreadable: list[UnreadableImage] = field(default_factory=list)
    trained_size: int | None = None
    classifier: ClassifierCheck | None = None
    trial: Trial | None = None
    denoiser: DenoiserCheck | None = None
    filter: FilterCheck | None = None
    cost: CostCheck | None = None
    disk: DiskCheck | None = None

    @property
    def problems(self) -> list[str]:
        """A line for each thing that is wrong or looks wrong."""
        parts = (data_problems, classifier_problems, target_problems, denoiser_problems, filter_problems)
        parts += (cost_problems, disk_problems)
        return list(dict.fromkeys([*self.faults, *(problem for part in parts for problem in part(self))]))


def data_problems(report: Report) -> Iterator[str]:
    if report.pictures and report.pictures.empty:
        yield report.pictures.empty
    if report.unreadable:
        first = report.unreadable[0]
        yield f"{len(report.unreadable)} pictures of the samples are unreadable and would be skipped, such as {first}"
    size = report.config.data.image_size
    if report.trained_size not in (None, size):
        yield f"--image_size {size}, but the classifier was trained on pictures of {report.trained_size} pixels"


def classifier_problems(report: Report) -> Iterator[str]:
    """Accuracy near chance, or clearly better if the pictures are shown in another way."""
    check = report.classifier
    if check is None or not check.right:
        return
    n, right, chance = len(check.right), sum(check.right), check.chance
    better = {name: count for name in check.otherwise if (count := clearly_better(check, name))}
    if better:
        name, (count, of) = max(better.items(), key=lambda item: item[1][0] / item[1][1])
        advice = "it was trained on BGR pictures, or these are BGR" if "swapped" in name else "check how it was trained"
        yield (
            f"the classifier is right on {count} of {of} pictures with {name}, on "
            f"{sum(check.right[:of])} of {of} without: {advice}"
        )
    if chance is None or right == n or right >= 1.5 * chance * n or binomial_tail(right, n, chance) <= LIKELY:
        return
    if binomial_tail(n - right, n, 1 - chance) < RARE:
        yield f"the classifier is wrong on {n - right} of {n} pictures, more than guessing: are the labels reversed?"
    else:
        yield (
            f"accuracy near chance: {right} of {n} pictures, where guessing is right on {chance:.0%}; "
            "check --label_query, --dataset and --classifier_path"
        )


def clearly_better(check: ClassifierCheck, name: str) -> tuple[int, int] | None:
    """(right pictures, pictures) when shown in another way, if that cannot be an accident (McNemar's test)."""
    otherwise = check.judged(check.otherwise[name])
    pairs = list(zip(otherwise, check.right, strict=False))
    won, lost = sum(new and not old for new, old in pairs), sum(old and not new for new, old in pairs)
    return (sum(otherwise), len(pairs)) if won + lost and binomial_tail(won, won + lost, 0.5) < RARE else None


def target_problems(report: Report) -> Iterator[str]:
    trial, data = report.trial, report.config.data
    if trial is None or trial.target is None:
        return
    said = trial.logits.ndim > 1 and data.label_target == data.label_query  # by what checks the labels
    if not said and bool((trial.target == trial.prediction).all()):
        yield (
            f"--label_target {data.label_target}: all of the {len(trial.target)} pictures tried are "
            "predicted as their target already, so that there is nothing to explain"
        )


def denoiser_problems(report: Report) -> Iterator[str]:
    """A network that does not denoise at all, overflows, or was trained for a warm start only."""
    if report.denoiser is None:
        return
    top, *others = report.denoiser.probes
    if not report.denoiser.finite:
        broken = [probe.step for probe in report.denoiser.probes if not math.isfinite(probe.error)]
        cause = (
            "half precision overflows: give --use_fp16 False" if report.config.model.use_fp16 else "is the file whole?"
        )
        yield f"the diffusion model returns NaN or infinity at step {broken[0]}; {cause}"
        return
    if all(probe.error > USELESS * probe.guess for probe in report.denoiser.probes):
        yield (
            f"the diffusion model does not denoise these pictures: noise prediction error {top.error:.2f} at step "
            f"{top.step} (1 = as bad as predicting nothing); check --model_path, --diffusion_steps and --noise_schedule"
        )
        return
    lower = min((probe for probe in others if probe.step < top.step), key=lambda probe: probe.error, default=None)
    if lower and top.error > max(top.guess, 1.5 * lower.error):
        yield (
            f"the diffusion model does not denoise at step {top.step}, where the filter starts: noise prediction "
            f"error {top.error:.2f}, but {lower.error:.2f} at step {lower.step}; it may have been trained for a warm "
            "start only: lower --sampling_time_fraction"
        )


def filter_problems(report: Report) -> Iterator[str]:
    check = report.filter
    if check and not all(map(math.isfinite, check.after)):
        yield "the classifier returns NaN or infinity on filtered pictures"
    elif check and len(check.kept) >= FEW and 2 * sum(check.kept) < len(check.kept):
        yield (
            f"the filter alone changes the prediction of {len(check.kept) - sum(check.kept)} of {len(check.kept)} "
            "pictures: the attack starts from another decision; lower --sampling_time_fraction"
        )


def cost_problems(report: Report) -> Iterator[str]:
    cost, attack = report.cost, report.config.attack
    if cost is None or (cost.fits and not cost.out_of_memory):
        return
    saved = not attack.attack_joint or attack.attack_joint_shortcut or attack.attack_joint_checkpoint
    advice = "a smaller --batch_size" if saved else "--attack_joint_checkpoint True, or a smaller --batch_size"
    if cost.out_of_memory:
        yield f"{cost.out_of_memory} pictures at once do not fit into memory; give {advice}"
    else:
        yield (
            f"{cost.wanted} pictures at once take about {in_bytes(cost.memory)} of {in_bytes(cost.limit)} of memory; "
            f"give {advice}"
        )


def disk_problems(report: Report) -> Iterator[str]:
    disk = report.disk
    if disk and disk.needed > disk.free:
        yield f"{in_bytes(disk.needed)} will be written, but only {in_bytes(disk.free)} are free in {disk.folder}"
    if disk and not disk.writable:
        yield f"--output_path {report.config.output.output_path}: {disk.folder} cannot be written to"


def binomial_tail(successes: int, n: int, p: float) -> float:
    """P(X >= successes) for X ~ B(n, p)."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes, n + 1))


def render(report: Report) -> str:
    """The report for a terminal."""
    sections = {
        "pictures": picture_lines,
        "classifier": classifier_lines,
        "filter": filter_lines,
        "cost": cost_lines,
        "disk": disk_lines,
    }
    lines = []
    for title, section in sections.items():
        text = list(section(report)) or ["not measured, see the problems"]
        lines += [f"{title if i == 0 else '':<12}{line}" for i, line in enumerate(text)]
    problems = report.problems
    return "\n".join([*lines, *(f"problem     {line}" for line in problems), *([] if problems else ["no problems"])])


def picture_lines(report: Report) -> Iterator[str]:
    check, config = report.pictures, report.config
    if check is None:
        return
    where = f"--dataset {config.data.dataset} in {config.data.data_dir}"
    ends = f", {check.first} to {check.last}" if check.selected else ""
    yield f"{check.selected} of the {check.total} of {where} are selected{ends}"
    reasons = {
        "another label": check.other_label,
        f"beyond --num_samples {config.data.num_samples}": check.beyond_num_samples,
        f"in other chunks than --chunk {config.run.chunk} of {config.run.chunks}": check.other_chunk,
    }
    others = [f"{count} {reason}" for reason, count in reasons.items() if count]
    if others:
        yield f"not selected: {', '.join(others)}"
    yield from check.notices
    if check.finished:
        yield f"{check.finished} are finished already in {config.output.output_path}/Results/{config.output.exp_name}"


def classifier_lines(report: Report) -> Iterator[str]:
    check = report.classifier
    if check is None or not check.predictions:
        return
    n, right = len(check.right), sum(check.right)
    if n:
        low, high = wilson(right, n)
        guess = f"; guessing {check.chance:.1%}" if check.chance is not None else "; all have one label"
        yield f"accuracy {right / n:.1%} on n = {n} drawn from the whole set (95 %: {low:.0%} to {high:.0%}){guess}"
    else:
        yield "accuracy unknown: the pictures have no labels"
    total, names = len(check.predictions), check.names
    shares = [
        f"{names[label] if names and label < len(names) else label} {count / total:.0%}"
        for label, count in Counter(check.predictions).most_common(6)
    ]
    yield f"predicts {', '.join(shares)} (n = {total})"
    for name, predictions in check.otherwise.items():
        judged = check.judged(predictions)
        if judged:
            yield f"with {name}: accuracy {sum(judged) / len(judged):.1%} (n = {len(judged)})"


def filter_lines(report: Report) -> Iterator[str]:
    trial, check, denoiser = report.trial, report.filter, report.denoiser
    if trial is None or trial.filter.model is None:
        return
    if not trial.filter.steps:
        yield "none: --sampling_time_fraction is 0"
        return
    attack, refinement = steps_of(trial.filter), steps_of(trial.refiner)
    yield attack
    if refinement != attack:
        yield f"in the refinement {refinement}"
    if check:
        n, kept = len(check.kept), sum(check.kept)
        before, after = (sum(values) / n for values in (check.before, check.after))
        change = f"{after - before:+.3f}, from {before:.3f}"
        yield f"keeps {kept} of {n} predictions; mean change of the predicted logit {change}"
    else:
        yield "predictions not tried: filtering one picture takes too long here"
    if denoiser:
        errors = [f"{p.error:.3f} at step {p.step}" for p in sorted(denoiser.probes, key=lambda probe: probe.step)]
        yield f"noise prediction error {', '.join(errors)} (1: as bad as predicting nothing; n = {denoiser.n})"


def steps_of(filter_: Filter) -> str:
    steps, diffusion = filter_.steps, filter_.diffusion
    if not steps:
        return "none"
    top = diffusion.timestep_map.values[steps - 1].item()
    return f"{steps} of {diffusion.num_timesteps} steps, from step {top} of {diffusion.original_steps}"


def cost_lines(report: Report) -> Iterator[str]:
    cost = report.cost
    if cost is None:
        return
    how = f"measured on a batch of {cost.batch}" if cost.batch else "estimated from single calls of the network"
    yield (
        f"{in_time(cost.seconds)} a picture = {cost.iterations} x {in_time(cost.gradient)} for the gradient "
        f"+ {in_time(cost.refinement)} for the refinement, {how} on {report.device.type}"
    )
    if report.pictures:
        count = report.pictures.pending
        yield f"{in_time(cost.seconds * count)} for the {count} pictures left to explain"
    limit = f" of {in_bytes(cost.limit)}" if cost.limit else ""
    if cost.memory is None:
        yield "memory not measured"
    elif cost.growth is None:
        yield f"memory: a batch of {cost.wanted} takes no more than loading did, {in_bytes(cost.base)}{limit}"
    else:
        yield (
            f"memory: about {in_bytes(cost.memory)}{limit} = {in_bytes(cost.base)} held before "
            f"+ {cost.wanted} at once x {in_bytes(cost.growth)}"
        )


def disk_lines(report: Report) -> Iterator[str]:
    disk = report.disk
    if disk is None:
        return
    yield (
        f"about {in_bytes(disk.needed)} will be written ({disk.pending} x {in_bytes(disk.per_picture)}), "
        f"{in_bytes(disk.free)} are free in {disk.folder}"
    )


def in_time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def in_bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
