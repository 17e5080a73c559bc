"""``--check True``: load everything, explain nothing, write nothing, and say what a run would meet."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.memory import in_bytes
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.imageset import EmptySelection, ImageSet, Sample, prefetch, select
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.evaluation.intervals import wilson
from ace_counterfactuals.core.method import checks
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Batch, Task
from ace_counterfactuals.core.preflight.model import check_cost, check_filter
from ace_counterfactuals.core.preflight.plan import check_plan
from ace_counterfactuals.core.preflight.report import Report, part_of
from ace_counterfactuals.core.runs.begin import check_folder, describe
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.plan import decide
from ace_counterfactuals.core.runs.run import load_region
from ace_counterfactuals.core.runs.setup import (
    align_classes,
    check,
    check_labels,
    diffusion_of,
    equipped,
    judged,
    load_denoiser,
    load_explained,
    open_images,
    prepare_device,
    select_images,
    settle_channels,
    task_of,
    with_predictions,
)
from ace_counterfactuals.models.classifiers import Classifier
from ace_counterfactuals.models.denoisers import DiffusionModel

SECONDS = 50.0
TRIAL, SAMPLE = 8, 64  # pictures that the run is tried on, and the classifier
AT_ONCE, TWICE = 8, 2  # pictures; TWICE: that the classifier is asked about again, with a gradient


def preflight(config: MainConfig, seconds: float = SECONDS) -> Report:
    """Check the run that the settings describe in about ``seconds``, on samples as small as that takes.

    Raises ValueError where settings contradict each other or the data set cannot be read; the rest goes on around what
    is wrong, and says so in the report.
    """
    end, report = time.monotonic() + seconds, Report()
    check(config, automatic=True)
    if config.run.merge_chunks:
        raise FlagError("merge_chunks", "True explains nothing, so that there is nothing to check; leave out check")
    results = ResultFolder(Path(config.output.output_path), config.output.exp_name)
    config, images = settle_channels(config, open_images(config, quiet=True), results.root)
    device = prepare_device(config)
    classifier = denoiser = None
    with report.going_on():
        loaded = load_explained(config, images.query, device)
        config, images = align_classes(config, images, loaded.class_names)
        classifier = loaded
    with report.going_on():
        denoiser = equipped(load_denoiser(config, device), config)
    if classifier is not None:
        with report.going_on():
            check_labels(config, images, classifier.num_outputs)
            images = with_predictions(config, images, classifier, SAMPLE)
            if images.predicted:
                report.sections["pictures"].append(f"selected by prediction, here of the first {SAMPLE} alone")
        with report.going_on():
            check_classifier(report, images, classifier, config, device, part_of(end, 0.2))
    with report.going_on():
        anew = config.run.overwrite and config.run.chunks == 1
        check_folder(results, describe(config, None), anew=anew)
    pending, count = images, 0
    with report.going_on():
        pending, count = check_pictures(report, images, config, results)
    with report.going_on():
        load_region(config, pending)
    samples = first_pictures(report, pending)
    if samples and classifier is not None:
        with report.going_on():
            model = denoiser or DiffusionModel(torch.nn.Identity(), diffusion_of(config))  # which is not asked
            batch = judge_samples(report, samples, task_of(config, classifier, model), device)
            if denoiser is not None:
                call = check_filter(report, batch, config, end)
                config = decide(config, results.root, batch, count)
                batch = replace(batch, task=replace(batch.task, attack=config.attack))
                if call is not None:
                    cost = check_cost(report, batch, config, count, call, end)
                    check_plan(report, batch, config.run.batch_size, count, cost)
    if samples:
        with report.going_on():
            check_disk(report, samples[0], config, count)
    return report


def judge_samples(report: Report, samples: list[Sample], task: Task, device: torch.device) -> Batch:
    """With their predictions and targets, which should not be the same."""
    batch = judged(samples, task, device)
    if batch.target is not None and bool((batch.target == batch.prediction).all()):
        said = f"all of the {len(samples)} pictures tried are predicted as their target already"
        report.problems.append(f"label_target {task.label_target}: {said}")
    return batch


def check_pictures(report: Report, images: ImageSet, config: MainConfig, results: ResultFolder) -> tuple[ImageSet, int]:
    """Tell of the selection.

    Returns the pictures to try the run on, all of the set's if nothing is left, and how many are left.
    """
    data, run, lines = config.data, config.run, report.sections["pictures"]
    labelled, chosen = 0, replace(images, records=[])
    try:
        labelled = len(select(images, label_target=data.label_target, label_query=data.label_query))
        chosen = select_images(images, config)
    except EmptySelection as error:
        report.problems.append(str(error))
    finished, _ = results.read()
    pending = [entry for entry in chosen.records if entry.index not in finished]
    ends = f", {chosen.records[0].path.name} to {chosen.records[-1].path.name}" if len(chosen) else ""
    where = f"dataset {data.dataset} in {data.data_dir}"
    lines.append(f"{len(chosen)} of the {len(images)} of {where} are selected{ends}")
    bounded = min(labelled, data.num_samples)
    reasons = {
        "another label": len(images) - labelled,
        f"beyond num_samples {data.num_samples}": labelled - bounded,
        f"in other chunks than {run.chunk} of {run.chunks}": bounded - len(chosen),
    }
    if others := [f"{count} {reason}" for reason, count in reasons.items() if count]:
        lines.append(f"not selected: {', '.join(others)}")
    lines += images.notices
    if done := len(chosen) - len(pending):
        lines.append(f"{done} are finished already in {results.root}")
    return replace(images, records=pending or chosen.records or images.records), len(pending)


def first_pictures(report: Report, images: ImageSet) -> list[Sample]:
    """The first TRIAL readable pictures among the first 4 * TRIAL; the unreadable ones are a problem."""
    samples, unreadable = [], []
    for item in prefetch(images, range(min(len(images), 4 * TRIAL)), 0):
        (samples if isinstance(item, Sample) else unreadable).append(item)
        if len(samples) == TRIAL:
            break
    if unreadable:
        said = f"{len(unreadable)} of the first pictures are unreadable and would be skipped, such as {unreadable[0]}"
        report.problems.append(said)
    return samples


@torch.no_grad()
def check_classifier(
    report: Report, images: ImageSet, classifier: Classifier, config: MainConfig, device: torch.device, end: float
) -> None:
    """Try the classifier on up to SAMPLE pictures of the whole set, drawn by the seed, until ``end``.

    Raises ValueError for one that an attack cannot follow.
    """
    order = np.random.default_rng(config.run.seed).permutation(len(images))[:SAMPLE].tolist()
    labels, predictions = [], []
    for start in range(0, len(order), AT_ONCE):
        if predictions and time.monotonic() > end:
            break
        items = prefetch(images, order[start : start + AT_ONCE], config.run.num_workers)
        if samples := [item for item in items if isinstance(item, Sample)]:
            labels += [sample.label for sample in samples]
            image = torch.stack([sample.image for sample in samples]).to(device)
            if not predictions:
                checks.check_classifier(classifier, image[:TWICE])
            predictions += predict(classifier(image)).tolist()
    classes = 2 if classifier.binary else classifier.num_outputs
    judge_predictions(report, labels, predictions, classes, images.class_names or classifier.class_names or ())
    size, trained = config.data.image_size, classifier.image_size
    if trained not in (None, size):
        report.problems.append(f"image_size {size}: the classifier was trained on pictures of {trained} pixels")


def judge_predictions(
    report: Report, labels: list[int], predictions: list[int], classes: int, names: Sequence[str]
) -> None:
    """Balanced accuracy, and whether guessing would have reached it.  labels: -1 where unknown."""
    if not predictions:
        return
    known = [(label, p) for label, p in zip(labels, predictions, strict=True) if label >= 0]
    n, right, guess, lines = len(known), sum(a == b for a, b in known), guessing(known, classes), []
    balanced, low, high = balanced_accuracy(known) if n else (0.0, 0.0, 1.0)
    if n:
        lines.append(f"accuracy {right / n:.1%} on n = {n} drawn from the whole set")
        chance = "all have one label" if guess is None else f"guessing {guess:.1%}"
        lines.append(f"balanced over the labels {balanced:.1%} (95 %: {low:.0%} to {high:.0%}); {chance}")
    shares = [
        f"{names[label] if label < len(names) else label} {count / len(predictions):.0%}"
        for label, count in Counter(predictions).most_common(6)
    ]
    lines = lines or ["accuracy unknown: the pictures have no labels"]
    report.sections["classifier"] += [*lines, f"predicts {', '.join(shares)} (n = {len(predictions)})"]
    if guess is not None and low <= guess and balanced < min(1, 1.5 * guess):
        report.problems.append(
            f"balanced accuracy near chance: {balanced:.1%} of {n} pictures, where guessing is right on {guess:.0%}; "
            "check label_query, dataset and classifier_path, and whether it was trained on other inputs, such as BGR "
            "pictures"
        )


def balanced_accuracy(known: list[tuple[int, int]]) -> tuple[float, float, float]:
    """The mean over the labels of the share that is predicted, with its 95 % interval.

    The interval is Wilson's of as many pictures as would know a mean of equal shares as well as these, so that few of a
    label count as few.  known: (label, prediction) of each picture, of one at least.
    """
    counts, right = Counter(label for label, _ in known), Counter(label for label, p in known if label == p)
    share = sum(right[label] / n for label, n in counts.items()) / len(counts)
    pictures = len(counts) ** 2 / sum(1 / n for n in counts.values())
    return share, *wilson(share * pictures, pictures)


def guessing(known: list[tuple[int, int]], classes: int) -> float | None:
    """The balanced accuracy of guessing: of one class among all, or of these predictions dealt out at random.

    known: (label, prediction) of each picture.  None where all have one label of two, which any guesser may know.
    """
    occurring = {label for label, _ in known}
    if len(occurring) < 2:
        return 1 / classes if classes > 2 and known else None
    return max(1 / classes, sum(p in occurring for _, p in known) / len(known) / len(occurring))


def check_disk(report: Report, sample: Sample, config: MainConfig, pending: int) -> None:
    """The room that the pictures left will take, and that there is, where the output is to lie."""
    path = Path(config.output.output_path).resolve()
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    disk = os.statvfs(folder)
    each, free = bytes_each(sample, config, disk.f_frsize), disk.f_bavail * disk.f_frsize
    needed, there = f"{in_bytes(each * pending)} will be written", f"{in_bytes(free)} are free in {folder}"
    report.sections["disk"].append(f"about {needed} ({pending} x {in_bytes(each)}), {there}")
    if each * pending > free:
        report.problems.append(f"{needed}, but only {there}")
    if not os.access(folder, os.W_OK):
        report.problems.append(f"output_path: {folder} cannot be written to")


def bytes_each(sample: Sample, config: MainConfig, block: int) -> int:
    """Bytes of one picture's files: the attacked ones compress as the original, noise and masks hardly."""
    values = sample.image.numel()
    sizes = [1, 1, 1]  # a block each: two Info files and the record
    if config.output.save_images:
        sizes += 3 * [len(atomic.png(to_pil(sample.image)))] + 2 * [values] + 2 * [values // 3]
        sizes += [2 * values] * config.output.save_float + 2 * [4 * values] * bool(config.data.span)
    return sum(-(-size // block) * block for size in sizes)
