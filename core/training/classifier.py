"""Training a classifier on a data set with classes, all of whose pictures are held in memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.runtime import choose_device, notice
from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.base.signals import asked, patient, stop_if_asked
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.imageset import ImageSet, open_pictures, prefetch, with_channels
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.training.checkpoints import settings_of
from ace_counterfactuals.core.training.config import TrainClassifierConfig
from ace_counterfactuals.core.training.trainer import mirroring, shuffled
from ace_counterfactuals.models.architectures import build_classifier, plain_name
from ace_counterfactuals.models.classifiers import save_classifier
from ace_counterfactuals.models.loading import load_weights, save_weights

HALF = (0.5,)
AT_ONCE = 500


def train(config: TrainClassifierConfig) -> tuple[tuple[str, ...], float | None]:
    """Train and write the classifier to ``output_path``; returns its classes and its accuracy on ``val_dir``, if given.

    Raises FlagError for a data set without classes.
    """
    training, device = config.training, choose_device(config.device.device, config.device.gpu)
    images = with_channels(open_classes(config, config.pictures.data_dir, "data_dir"), config.pictures.image_channels)
    held_out = open_classes(config, training.val_dir, "val_dir") if training.val_dir else None
    held_out = held_out and replace(held_out, channels=images.channels)
    if held_out and held_out.class_names != images.class_names:
        raise FlagError("val_dir", f"{training.val_dir}: has other classes than data_dir {config.pictures.data_dir}")
    classes = images.class_names or ()
    if Path(training.output_path).is_dir():
        raise FlagError("output_path", f"{training.output_path}: is a folder; give the file that is to be written")
    guard.make_folder(Path(training.output_path).parent)  # now, and not after the training
    network = new_network(config, len(classes), images.channels).to(device)
    fit(network, *decode_all(images, config.device.num_workers), config, device)
    save_classifier(
        training.output_path,
        network.eval(),
        arch=plain_name(training.arch),
        class_names=classes,
        mean=HALF * images.channels,
        std=HALF * images.channels,
        image_size=config.pictures.image_size,
    )
    guard.remove([unfinished_path(config)])
    measured = accuracy(network, *decode_all(held_out, config.device.num_workers), device) if held_out else None
    return classes, measured


def new_network(config: TrainClassifierConfig, classes: int, channels: int) -> nn.Module:
    """To be trained.  Raises FlagError for one that there is not, or that does not take pictures of this size."""
    arch, size = config.training.arch, config.pictures.image_size
    torch.manual_seed(config.device.seed)
    with blaming("arch"):
        network = build_classifier(arch, classes, channels)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        said = " ".join(str(error).split())[:150]
        raise FlagError("image_size", f"{size}: {arch} does not take such pictures ({said}); choose another") from None
    return network


def open_classes(config: TrainClassifierConfig, folder: str, field: str) -> ImageSet:
    """The pictures of ``folder``, which the setting ``field`` names."""
    name = config.pictures.dataset
    images = open_pictures(replace(config.pictures, data_dir=folder), split="train", field=field)
    if images.binary or images.class_names is None:
        raise FlagError(field, f"{folder}: dataset {name} has no classes; use one folder a class")
    return images


def decode_all(images: ImageSet, workers: int) -> tuple[Tensor, Tensor]:
    """All readable pictures as (N, C, H, W) uint8, and their labels (N,)."""
    pictures, labels = [], []
    for sample in tqdm(prefetch(images, range(len(images)), workers), "decoding", len(images), disable=None):
        if isinstance(sample, UnreadableImage):
            notice(f"left out: {sample}")
            continue
        pictures.append((sample.image * 255).round().byte())
        labels.append(sample.label)
    if not pictures:
        raise ValueError(f"no picture of dataset {images.name} can be read")
    return torch.stack(pictures), torch.tensor(labels)


def to_input(pictures: Tensor, device: torch.device) -> Tensor:
    """uint8 -> [-1, 1]."""
    return pictures.to(device).float() / 127.5 - 1


def fit(
    network: nn.Module, pictures: Tensor, labels: Tensor, config: TrainClassifierConfig, device: torch.device
) -> None:
    """Minimise the cross-entropy over pictures (N, C, H, W) uint8 with labels (N,)."""
    training, seed = config.training, config.device.seed
    steps = training.epochs * -(-len(pictures) // training.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=max(steps, 2))
    positions = shuffled(len(pictures), training.batch_size, seed)
    flip = training.random_flip and spec_of(config.pictures.dataset).mirrored
    unfinished = Unfinished(config, len(pictures), {"network": network, "optimizer": optimizer, "schedule": schedule})
    first = unfinished.restored()
    network.train()
    with patient("this step, from which the same command continues", soon=False):
        for step in (progress := tqdm(range(first, steps), "training", steps, initial=first, disable=None)):
            chosen = positions(step)
            batch = to_input(pictures[chosen], device)
            if flip:
                mirrored = torch.from_numpy(mirroring(seed, step, len(batch))).to(device)
                batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
            loss = F.cross_entropy(network(batch), labels[chosen].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                progress.set_postfix(loss=f"{loss.item():.4f}")
            if asked():
                unfinished.keep(step + 1)
                break
    stop_if_asked()


class Unfinished:
    """``OUTPUT_PATH.unfinished``, what a signal leaves of a training: all that its next step goes on from.

    pictures: how many there are.  parts: what has a ``state_dict``, by name.
    """

    def __init__(self, config: TrainClassifierConfig, pictures: int, parts: Mapping[str, Any]):
        self.path, self.parts = unfinished_path(config), parts
        self.made = {**settings_of(config), "pictures": pictures}

    def keep(self, step: int) -> None:
        """After so many steps."""
        drawn = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            drawn["cuda"] = torch.cuda.get_rng_state()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        save_weights(self.path, {"made": self.made, "step": step, "drawn": drawn, **states})

    def restored(self) -> int:
        """The steps that are done.  Raises FlagError for a file that is none of ours."""
        if not self.path.exists():
            return 0
        try:
            tree = load_weights(self.path)
            if settings_of(TrainClassifierConfig()) | tree["made"] != self.made:
                notice(f"{self.path}: is of other settings; training begins anew")
                return 0
            for name, part in self.parts.items():
                part.load_state_dict(tree[name])
            torch.set_rng_state(tree["drawn"]["cpu"])
            if "cuda" in tree["drawn"] and torch.cuda.is_available():
                torch.cuda.set_rng_state(tree["drawn"]["cuda"])
            step = int(tree["step"])
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise FlagError("output_path", f"{self.path}: cannot be continued from ({said}); delete it") from None
        notice(f"continuing after step {step}")
        return step


def unfinished_path(config: TrainClassifierConfig) -> Path:
    return Path(f"{config.training.output_path}.unfinished")


@torch.no_grad()
def accuracy(network: nn.Module, pictures: Tensor, labels: Tensor, device: torch.device) -> float:
    """Share of pictures (N, C, H, W) uint8 that are classified as their label says."""
    parts = zip(pictures.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    right = sum((network(to_input(part, device)).argmax(1).cpu() == label).sum().item() for part, label in parts)
    return right / len(labels)
