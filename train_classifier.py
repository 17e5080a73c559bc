"""Train a classifier on a data set with classes; the file it writes is what --classifier_path of main.py takes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ace_counterfactuals.core.base.runtime import choose_device, notice
from ace_counterfactuals.core.base.settings import UserError
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.imageset import ImageSet, open_dataset, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.training.config import TrainClassifierConfig
from ace_counterfactuals.guided_diffusion.training import shuffled
from ace_counterfactuals.models.classifiers import build_classifier, save_classifier

MEAN = STD = (0.5, 0.5, 0.5)


@program(TrainClassifierConfig, __doc__)
def main(config: TrainClassifierConfig) -> int:
    training, device = config.training, choose_device(config.device.device, config.device.gpu)
    images = open_classes(config, config.pictures.data_dir, "--data_dir")
    torch.manual_seed(config.device.seed)
    network = build_classifier(training.arch, len(images.class_names)).to(device)
    pictures, labels = decode_all(images, config.device.num_workers)
    train(network, pictures, labels, config, device)
    save_classifier(
        training.output_path,
        network.eval(),
        arch=training.arch,
        class_names=images.class_names,
        mean=MEAN,
        std=STD,
        image_size=config.pictures.image_size,
    )
    measured = (
        "" if not training.val_dir else f", accuracy on --val_dir {validate(network, images, config, device):.4f}"
    )
    print(f"{training.output_path}: {training.arch}, {len(images.class_names)} classes{measured}")
    return 0


def open_classes(config: TrainClassifierConfig, folder: str, flag: str) -> ImageSet:
    pictures = config.pictures
    images = open_dataset(pictures.dataset, folder, image_size=pictures.image_size, split="train")
    if images.binary or images.class_names is None:
        raise UserError(f"{flag} {folder}: --dataset {pictures.dataset} has no classes; use one folder a class")
    return images


def decode_all(images: ImageSet, workers: int) -> tuple[Tensor, Tensor]:
    """All readable pictures as (N, 3, H, W) uint8, and their labels."""
    pictures, labels = [], []
    for sample in tqdm(prefetch(images, range(len(images)), workers), "decoding", len(images), disable=None):
        if isinstance(sample, UnreadableImage):
            notice(f"left out: {sample}")
            continue
        pictures.append((sample.image * 255).round().byte())
        labels.append(sample.label)
    return torch.stack(pictures), torch.tensor(labels)


def to_input(pictures: Tensor, device: torch.device) -> Tensor:
    """uint8 -> normalised."""
    return pictures.to(device).float() / 127.5 - 1


def train(
    network: torch.nn.Module, pictures: Tensor, labels: Tensor, config: TrainClassifierConfig, device: torch.device
) -> None:
    training, seed = config.training, config.device.seed
    steps = training.epochs * -(-len(pictures) // training.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=max(steps, 2))
    positions = shuffled(len(pictures), training.batch_size, seed)
    network.train()
    for step in (progress := tqdm(range(steps), "training", disable=None)):
        chosen = positions(step)
        batch = to_input(pictures[chosen], device)
        if training.random_flip:
            mirrored = torch.from_numpy(np.random.default_rng([seed, step, 1]).random(len(batch)) < 0.5).to(device)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        loss = F.cross_entropy(network(batch), labels[chosen].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")


@torch.no_grad()
def validate(network: torch.nn.Module, images: ImageSet, config: TrainClassifierConfig, device: torch.device) -> float:
    """Share of the pictures in --val_dir that are classified as their folder says."""
    held_out = open_classes(config, config.training.val_dir, "--val_dir")
    if held_out.class_names != images.class_names:
        raise UserError(
            f"--val_dir {config.training.val_dir} has other classes than --data_dir {config.pictures.data_dir}"
        )
    pictures, labels = decode_all(held_out, config.device.num_workers)
    parts = zip(pictures.split(500), labels.split(500), strict=True)
    right = sum((network(to_input(p, device)).argmax(1).cpu() == label).sum().item() for p, label in parts)
    return right / len(labels)


if __name__ == "__main__":
    run_script(main)
