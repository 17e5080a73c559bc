"""Training a diffusion model: a folder of checkpoints, each with a grid of samples, and log.csv."""

import csv
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.runtime import choose_device, half_precision, notice
from ace_counterfactuals.core.base.settings import FlagError, blaming, to_dict
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.data.imageset import ImageSet, open_dataset, prefetch, with_channels
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.method.filtering import to_diffusion, to_image
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.trainer import Batch, Trainer, mirroring, sample, shuffled
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from ace_counterfactuals.models.loading import load_state, load_weights, save_weights

SAMPLES, SAMPLE_STEPS = 32, 50


def train(config: TrainDiffusionConfig) -> Path:
    """Train until ``lr_anneal_steps``, or until stopped where that is 0; returns the folder of the checkpoints.

    Raises FlagError, and FloatingPointError where the loss is no number.
    """
    training, pictures = config.training, config.pictures
    images = open_dataset(pictures.dataset, pictures.data_dir, image_size=pictures.image_size, split="train")
    images = with_channels(images, pictures.image_channels)
    guard.give(folder := Path(training.output_path))
    if training.init_weights and training.resume_checkpoint:
        raise FlagError("init_weights", "begins anew, resume_checkpoint continues; give one of them")
    if not training.resume_checkpoint and any(folder.glob("model*.pt")):
        raise FlagError("output_path", f"{folder}: has checkpoints; give one as resume_checkpoint, or another folder")
    condition = conditions(config, images)
    trainer = make_trainer(config, condition, images)
    images = replace(images, channels=trainer.model.config.in_channels)
    guard.make_folder(folder)
    atomic.write_yaml(folder / "config.yaml", to_dict(config))
    until = training.lr_anneal_steps or 10**9
    batch = picture_batches(config, images, condition, trainer.step)
    with guard.open_to_write(folder / "log.csv", "a") as file, tqdm(total=until, initial=trainer.step) as progress:
        log, recent = csv.writer(file, lineterminator="\n"), []
        for losses in trainer.train(batch, until):
            recent.append(losses)
            progress.update()
            if trainer.step % training.log_interval == 0:
                means = {name: float(np.mean([step[name] for step in recent])) for name in losses}
                log.writerow([trainer.step, *(f"{value:.6f}" for value in means.values())])
                file.flush()
                progress.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
                recent.clear()
            if trainer.step % training.save_interval == 0 or trainer.step == until:
                save(config, trainer, folder, condition)
    return folder


def conditions(config: TrainDiffusionConfig, images: ImageSet) -> Tensor | None:
    """By ``PictureFile.index``: the class (n,) of each picture, or the attributes (n, 40) of each face."""
    pictures = config.pictures
    if not config.model.class_cond:
        return None
    if spec_of(pictures.dataset).faces:
        return torch.from_numpy(celeba_attributes(pictures.data_dir, pictures.dataset)).float()
    if images.binary or images.class_names is None:
        raise FlagError("class_cond", f"True: dataset {pictures.dataset} has no classes to condition on")
    condition = torch.zeros(max(record.index for record in images.records) + 1, dtype=torch.int64)
    for record in images.records:
        condition[record.index] = record.label
    return condition


def make_trainer(config: TrainDiffusionConfig, condition: Tensor | None, images: ImageSet) -> Trainer:
    """New, begun with given weights, or continued."""
    training, flags = config.training, {**to_dict(config), "in_channels": images.channels}
    device = choose_device(config.device.device, config.device.gpu)
    if condition is not None:
        flags["num_classes"] = condition.shape[1] if condition.ndim == 2 else len(images.class_names or ())

    def network(path: str | Path) -> UNetModel:
        unet = build_unet(flags, load_state(path) if path else None, str(path))
        own, asked = unet.config.in_channels, config.pictures.image_channels
        if own < images.channels or asked not in ("auto", own):
            raise ValueError(f"{path} is of pictures of {own} channels, but these have {images.channels}")
        return unet.to(device).to(memory_format=torch.channels_last)

    torch.manual_seed(config.device.seed)
    resumed = Path(training.resume_checkpoint)
    match = re.fullmatch(r"model(\d+)\.pt", resumed.name)
    if training.resume_checkpoint and not match:
        raise FlagError("resume_checkpoint", f"{resumed}: wanted a file named modelNNNNNN.pt")
    with blaming("resume_checkpoint" if match else "init_weights"):
        model = network(training.resume_checkpoint or training.init_weights).requires_grad_()
        trainer = Trainer(
            model,
            GaussianDiffusion(config.diffusion),
            training,
            seed=config.device.seed,
            precision=half_precision(device, on_cuda=torch.bfloat16) if config.model.use_fp16 else torch.float32,
        )
        if match:
            trainer.step = int(match[1])
            _, ema, optimiser = checkpoint_paths(resumed.parent, trainer.step, training.ema_rate)
            trainer.ema = network(ema)
            trainer.optimizer.load_state_dict(load_weights(optimiser)["optimizer"])
    return trainer


def picture_batches(
    config: TrainDiffusionConfig, images: ImageSet, condition: Tensor | None, first_step: int
) -> Callable[[int], Batch]:
    """step -> its pictures, decoded ahead; an unreadable one is left out, with a notice."""
    size, seed = config.training.batch_size, config.device.seed
    positions = shuffled(len(images), size, seed)
    stream = itertools.chain.from_iterable(positions(step) for step in itertools.count(first_step))
    samples = iter(prefetch(images, map(int, stream), config.device.num_workers))
    flip = config.training.random_flip and spec_of(config.pictures.dataset).mirrored

    def batch(step: int) -> Batch:
        pictures, indices = [], []
        for mirrored, decoded in zip(mirroring(seed, step, size), itertools.islice(samples, size), strict=True):
            if isinstance(decoded, UnreadableImage):
                notice(f"left out: {decoded}")
                continue
            pictures.append(decoded.image.flip(-1) if flip and mirrored else decoded.image)
            indices.append(decoded.index)
        if not pictures:
            raise FlagError("data_dir", f"{config.pictures.data_dir}: no picture of step {step} can be read")
        x_0 = to_diffusion(torch.stack(pictures)).contiguous(memory_format=torch.channels_last)
        return x_0, None if condition is None else condition[indices]

    return batch


def checkpoint_paths(folder: Path, step: int, ema_rate: float) -> tuple[Path, Path, Path]:
    """Model, moving average, optimiser."""
    return folder / f"model{step:06d}.pt", folder / f"ema_{ema_rate}_{step:06d}.pt", folder / f"opt{step:06d}.pt"


def save(config: TrainDiffusionConfig, trainer: Trainer, folder: Path, condition: Tensor | None) -> None:
    """Write the three files of a checkpoint and a grid of samples of the moving average."""
    model, ema, optimiser = checkpoint_paths(folder, trainer.step, config.training.ema_rate)
    average = trainer.ema.state_dict()
    if config.training.ema_fp16:
        average = {name: value.half() for name, value in average.items()}
    save_weights(model, trainer.model.state_dict())
    save_weights(ema, average)
    save_weights(optimiser, {"step": trainer.step, "optimizer": trainer.optimizer.state_dict()})
    y = None if condition is None else condition[:SAMPLES].to(next(trainer.ema.parameters()).device)
    size = trainer.model.config.in_channels, *spec_of(config.pictures.dataset).shape(config.pictures.image_size)
    process = GaussianDiffusion(config.diffusion, str(min(SAMPLE_STEPS, config.diffusion.diffusion_steps)))
    count = SAMPLES if y is None else len(y)
    pictures = sample(trainer.ema, process, (count, *size), seed=config.device.seed, y=y)
    atomic.write_png(folder / f"samples{trainer.step:06d}.png", to_pil(make_grid(to_image(pictures).clamp(0, 1).cpu())))
