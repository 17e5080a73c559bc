"""What ``--check True`` finds out of pictures, classifier and disk. Nothing here prints or writes."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.data.imageset import EmptySelection, ImageSet, Sample, prefetch, select
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.method.filtering import change_mask, to_image
from ace_counterfactuals.core.method.noise import REFINEMENT, image_noise
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.floats import to_npy
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.setup import select_images
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion

SAMPLE = 64  # pictures that the classifier is tried on
AT_ONCE = 8
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Budget:
    """Seconds that may still be spent."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.end = clock() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self.end - self.clock())

    def share(self, part: float) -> "Budget":
        return Budget(part * self.left, self.clock)


@dataclass(frozen=True)
class PictureCheck:
    """total pictures of which ``selected`` are to be explained, ``finished`` of them are; the others by reason.

    empty: why nothing is selected, '' if something is.  notices: what reading the data set had to say.
    """

    total: int
    selected: int
    finished: int
    other_label: int
    beyond_num_samples: int
    other_chunk: int
    first: str
    last: str
    empty: str
    notices: tuple[str, ...]

    @property
    def pending(self) -> int:
        return self.selected - self.finished


def survey(images: ImageSet, config: MainConfig, results: ResultFolder) -> tuple[PictureCheck, ImageSet]:
    """The selection as numbers, and the pictures still to explain: all of the set's if nothing is selected."""
    data, empty, total = config.data, "", len(images)
    try:
        labelled = len(select(images, label_target=data.label_target, label_query=data.label_query))
    except EmptySelection:
        labelled = 0
    try:
        chosen = select_images(images, config)
    except EmptySelection as error:
        chosen, empty = replace(images, records=[]), str(error)
    finished, _ = results.read()
    pending = [entry for entry in chosen.records if entry.index not in finished]
    bounded = min(labelled, data.num_samples)
    check = PictureCheck(
        total=total,
        selected=len(chosen),
        finished=len(chosen) - len(pending),
        other_label=total - labelled,
        beyond_num_samples=labelled - bounded,
        other_chunk=bounded - len(chosen),
        first=chosen.records[0].path.name if len(chosen) else "",
        last=chosen.records[-1].path.name if len(chosen) else "",
        empty=empty,
        notices=images.notices,
    )
    return check, replace(images, records=pending or chosen.records or images.records)


@dataclass(frozen=True)
class ClassifierCheck:
    """Predictions on a sample of the whole data set.

    labels: -1 where unknown.  otherwise: what the same pictures were shown as instead -> predictions; where time was
    short, on the first of them only.
    """

    classes: int
    names: Sequence[str] | None
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    otherwise: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def right(self) -> tuple[bool, ...]:
        """Of the pictures whose label is known."""
        return self.judged(self.predictions)

    def judged(self, predictions: Sequence[int]) -> tuple[bool, ...]:
        pairs = zip(self.labels, predictions, strict=False)
        return tuple(label == prediction for label, prediction in pairs if label >= 0)

    @property
    def chance(self) -> float | None:
        """What guessing would reach that knows how often each label occurs and is predicted; None if that is all
        there is to know: all pictures have one label and the question is yes or no."""
        known = [(label, p) for label, p in zip(self.labels, self.predictions, strict=True) if label >= 0]
        occurring = {label for label, _ in known}
        if len(occurring) < 2:
            return 1 / self.classes if self.classes > 2 and known else None
        labels, predictions = zip(*known, strict=True)
        agreement = sum(labels.count(k) * predictions.count(k) for k in occurring) / len(known) ** 2
        return max(1 / self.classes, agreement)


def measure_classifier(
    images: ImageSet, classifier, device: torch.device, *, seed: int, workers: int, budget: Budget
) -> tuple[ClassifierCheck, list[UnreadableImage]]:
    """Try the classifier on up to SAMPLE pictures, drawn by ``seed``, and then shown in other ways."""
    order = np.random.default_rng(seed).permutation(len(images))[:SAMPLE].tolist()
    samples, unreadable, predictions = [], [], []
    first = budget.share(0.4)
    stream = prefetch(images, order, workers)
    while batch := list(islice(stream, AT_ONCE)):
        unreadable += [item for item in batch if isinstance(item, UnreadableImage)]
        batch = [item for item in batch if isinstance(item, Sample)]
        if batch:
            samples.append(torch.stack([sample.image for sample in batch]))
            predictions += [(s.label, p) for s, p in zip(batch, _predict(classifier, samples[-1], device), strict=True)]
        if predictions and not first.left:
            break
    stream.close()
    check = ClassifierCheck(
        classes=2 if classifier.binary else classifier.num_outputs,
        names=images.class_names or classifier.class_names,
        labels=tuple(label for label, _ in predictions),
        predictions=tuple(prediction for _, prediction in predictions),
    )
    views = {} if all(check.right) else other_views(classifier)  # where nothing is wrong, nothing can be better
    for name, view in views.items():
        shown = []
        for batch in samples:
            if not budget.left:
                break
            shown += _predict(classifier, view(batch), device)
        check.otherwise[name] = tuple(shown)
    return check, unreadable


@torch.no_grad()
def _predict(classifier, images: Tensor, device: torch.device) -> list[int]:
    return predict(classifier(images.to(device))).tolist()


def other_views(classifier) -> dict[str, Callable[[Tensor], Tensor]]:
    """What the pictures may have to be shown as: with red and blue swapped, or as the network's other inputs."""
    views = {"red and blue swapped": lambda image: image.flip(1)}
    mean, std = (getattr(classifier, name, None) for name in ("mean", "std"))
    if mean is None or std is None:
        return views
    mean, std = mean.cpu(), std.cpu()
    inputs = {
        "inputs in [0, 1]": ((0.0,) * 3, (1.0,) * 3),
        "inputs in [-1, 1]": ((0.5,) * 3, (0.5,) * 3),
        "inputs in [0, 255]": ((0.0,) * 3, (1 / 255,) * 3),
        "ImageNet's normalisation": IMAGENET,
    }
    for name, (other_mean, other_std) in inputs.items():
        m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (other_mean, other_std))
        if not (torch.allclose(m, mean) and torch.allclose(s, std)):
            views[name] = lambda image, m=m, s=s: (image - m) / s * std + mean
    return views


@dataclass(frozen=True)
class DiskCheck:
    """Bytes that a picture's files take and that are free in ``folder``, the deepest that exists of the output's."""

    per_picture: int
    pending: int
    free: int
    folder: Path
    writable: bool

    @property
    def needed(self) -> int:
        return self.per_picture * self.pending


@torch.no_grad()
def measure_disk(
    sample: Sample, config: MainConfig, diffusion: GaussianDiffusion, pictures: PictureCheck | None
) -> DiskCheck:
    """Encode the files of one picture, with stand-ins for what only the attack would know."""
    path = Path(config.output.output_path).resolve()
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    block = os.statvfs(folder).f_frsize if hasattr(os, "statvfs") else 4096
    sizes = [1, 1, 1]  # a block each: two Info files and the record
    if config.output.save_images:
        reach = min(config.attack.attack_epsilon, config.attack.attack_step * config.attack.attack_iterations, 8) / 255
        image = sample.image
        noise_fn = image_noise(config.run.seed, [sample.index], REFINEMENT)
        task = Task(classifier=None, denoiser=None, diffusion=diffusion, sampling=config.sampling)
        filter_ = task.filter(refining=True)
        noised = to_image(filter_.start(image[None], noise_fn)).clamp(0, 1)[0]
        change = torch.from_numpy(np.random.default_rng(0).uniform(-reach, reach, tuple(image.shape))).to(image)
        noise, mask = png_size(noised), png_size(change_mask(image[None], noised[None])[0])
        sizes += [2 * png_size(image), png_size((image + change).clamp(0, 1)), noise, noise, mask, mask]
        sizes += [len(to_npy(image.half()))] if config.output.save_float else []
    per_picture = sum(-(-size // block) * block for size in sizes)
    return DiskCheck(
        per_picture,
        pictures.pending if pictures else 0,
        shutil.disk_usage(folder).free,
        folder,
        os.access(folder, os.W_OK),
    )


def png_size(picture: Tensor) -> int:
    return len(atomic.png(to_pil(picture)))
