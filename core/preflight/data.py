"""What ``--check True`` finds out of pictures, classifier and disk."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.data.imageset import EmptySelection, ImageSet, Sample, prefetch, select
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.evaluation.intervals import wilson
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.preflight.section import Budget, Section, in_bytes
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.setup import select_images
from ace_counterfactuals.models.classifiers import Classifier

TRIAL, SAMPLE = 8, 64  # pictures that the run is tried on, and the classifier
AT_ONCE = 8
LIKELY = 0.05  # an accident of this probability may have happened


def check_pictures(images: ImageSet, config: MainConfig, results: ResultFolder) -> tuple[Section, ImageSet, int]:
    """The selection; the pictures to try the run on, all of the set's if nothing is left; how many are left."""
    data, run, section = config.data, config.run, Section()
    try:
        labelled = len(select(images, label_target=data.label_target, label_query=data.label_query))
    except EmptySelection:
        labelled = 0
    try:
        chosen = select_images(images, config)
    except EmptySelection as error:
        chosen = replace(images, records=[])
        section.problems.append(str(error))
    finished, _ = results.read()
    pending = [entry for entry in chosen.records if entry.index not in finished]
    ends = f", {chosen.records[0].path.name} to {chosen.records[-1].path.name}" if len(chosen) else ""
    where = f"dataset {data.dataset} in {data.data_dir}"
    section.lines.append(f"{len(chosen)} of the {len(images)} of {where} are selected{ends}")
    bounded = min(labelled, data.num_samples)
    reasons = {
        "another label": len(images) - labelled,
        f"beyond num_samples {data.num_samples}": labelled - bounded,
        f"in other chunks than {run.chunk} of {run.chunks}": bounded - len(chosen),
    }
    if others := [f"{count} {reason}" for reason, count in reasons.items() if count]:
        section.lines.append(f"not selected: {', '.join(others)}")
    section.lines += images.notices
    if done := len(chosen) - len(pending):
        section.lines.append(f"{done} are finished already in {results.root}")
    return section, replace(images, records=pending or chosen.records or images.records), len(pending)


def first_pictures(images: ImageSet, section: Section) -> list[Sample]:
    """The first TRIAL readable pictures among the first 4 * TRIAL; the unreadable ones are a problem."""
    samples, unreadable = [], []
    for item in prefetch(images, range(min(len(images), 4 * TRIAL)), 0):
        (unreadable if isinstance(item, UnreadableImage) else samples).append(item)
        if len(samples) == TRIAL:
            break
    if unreadable:
        said = f"{len(unreadable)} of the first pictures are unreadable and would be skipped, such as {unreadable[0]}"
        section.problems.append(said)
    return samples


@torch.no_grad()
def check_classifier(
    images: ImageSet, classifier: Classifier, config: MainConfig, device: torch.device, budget: Budget
) -> Section:
    """Try the classifier on up to SAMPLE pictures of the whole set, drawn by the seed."""
    order = np.random.default_rng(config.run.seed).permutation(len(images))[:SAMPLE].tolist()
    labels, predictions = [], []
    stream = prefetch(images, order, config.run.num_workers)
    while items := list(islice(stream, AT_ONCE)):
        if samples := [item for item in items if isinstance(item, Sample)]:
            labels += [sample.label for sample in samples]
            image = torch.stack([sample.image for sample in samples]).to(device)
            predictions += predict(classifier(image)).tolist()
        if predictions and not budget.left:
            break
    stream.close()
    classes = 2 if classifier.binary else classifier.num_outputs
    section = judge_predictions(labels, predictions, classes, images.class_names or classifier.class_names or ())
    size, trained = config.data.image_size, classifier.image_size
    if trained not in (None, size):
        section.problems.append(f"image_size {size}: the classifier was trained on pictures of {trained} pixels")
    return section


def judge_predictions(labels: list[int], predictions: list[int], classes: int, names: Sequence[str]) -> Section:
    """Accuracy, and whether guessing would have reached it.  labels: -1 where unknown."""
    known = [(label, p) for label, p in zip(labels, predictions, strict=True) if label >= 0]
    n, right, chance, section = len(known), sum(a == b for a, b in known), guessing(known, classes), Section()
    if n:
        low, high = wilson(right, n)
        guess = f"; guessing {chance:.1%}" if chance is not None else "; all have one label"
        said = f"accuracy {right / n:.1%} on n = {n} drawn from the whole set (95 %: {low:.0%} to {high:.0%}){guess}"
        section.lines.append(said)
    elif predictions:
        section.lines.append("accuracy unknown: the pictures have no labels")
    shares = [
        f"{names[label] if label < len(names) else label} {count / len(predictions):.0%}"
        for label, count in Counter(predictions).most_common(6)
    ]
    section.lines += [f"predicts {', '.join(shares)} (n = {len(predictions)})"] if shares else []
    if chance is not None and right < min(n, 1.5 * chance * n) and binomial_tail(right, n, chance) > LIKELY:
        section.problems.append(
            f"accuracy near chance: {right} of {n} pictures, where guessing is right on {chance:.0%}; check "
            "label_query, dataset and classifier_path, and whether it was trained on other inputs, such as BGR pictures"
        )
    return section


def guessing(known: list[tuple[int, int]], classes: int) -> float | None:
    """The accuracy of guessing: of one class among all, or of these predictions dealt to the pictures at random.

    known: (label, prediction) of each picture.  None where all have one label of two, which any guesser may know.
    """
    occurring = {label for label, _ in known}
    if len(occurring) < 2:
        return 1 / classes if classes > 2 and known else None
    labels, predictions = zip(*known, strict=True)
    agreement = sum(labels.count(k) * predictions.count(k) for k in occurring) / len(known) ** 2
    return max(1 / classes, agreement)


def binomial_tail(successes: int, n: int, p: float) -> float:
    """P(X >= successes) for X ~ B(n, p)."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes, n + 1))


def check_disk(sample: Sample, config: MainConfig, pending: int) -> Section:
    """The room that the pictures left will take, and that there is, where the output is to lie."""
    path = Path(config.output.output_path).resolve()
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    block = os.statvfs(folder).f_frsize if hasattr(os, "statvfs") else 4096
    each, free = bytes_each(sample, config, block), shutil.disk_usage(folder).free
    needed = f"{in_bytes(each * pending)} will be written"
    section = Section([f"about {needed} ({pending} x {in_bytes(each)}), {in_bytes(free)} are free in {folder}"])
    if each * pending > free:
        section.problems.append(f"{needed}, but only {in_bytes(free)} are free in {folder}")
    if not os.access(folder, os.W_OK):
        section.problems.append(f"output_path: {folder} cannot be written to")
    return section


def bytes_each(sample: Sample, config: MainConfig, block: int) -> int:
    """Bytes of one picture's files: the attacked ones compress as the original, noise and masks hardly."""
    values = sample.image.numel()
    sizes = [1, 1, 1]  # a block each: two Info files and the record
    if config.output.save_images:
        sizes += 3 * [len(atomic.png(to_pil(sample.image)))] + 2 * [values] + 2 * [values // 3]
        sizes += [2 * values] if config.output.save_float else []
    return sum(-(-size // block) * block for size in sizes)
