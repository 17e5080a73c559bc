"""Training a diffusion model: a folder of checkpoints, each with a grid of samples, and log.csv."""

import itertools
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.runtime import choose_device, half_precision, notice
from ace_counterfactuals.core.base.settings import FlagError, blaming, to_dict
from ace_counterfactuals.core.base.signals import asked, patient, stop_if_asked
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.data.imageset import ImageSet, open_pictures, prefetch, with_channels
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.method.filtering import to_diffusion, to_image
from ace_counterfactuals.core.training.checkpoints import (
    CONFIG,
    LOG,
    LOSS,
    Log,
    TrainingFolder,
    checkpoint_paths,
    draw_loss,
    restore,
)
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.trainer import Batch, Trainer, mirroring, sample, shuffled
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from ace_counterfactuals.models.loading import load_state

SAMPLES, SAMPLE_STEPS = 32, 50


def train(config: TrainDiffusionConfig, told: Callable[[Path], object] = lambda _: None) -> Path:
    """Train until ``lr_anneal_steps``, or until stopped where that is 0, or until ``max_minutes`` are over; returns the
    folder of the checkpoints.

    told: is called with the folder at the beginning and whenever there are new samples in it.
    The same command goes on from the last checkpoint, and a signal leaves one.
    Raises FlagError, and FloatingPointError where the loss is no number.
    """
    training = config.training
    images = training_images(config)
    if training.init_weights and training.resume_checkpoint:
        raise FlagError("init_weights", "begins anew, resume_checkpoint continues; give one of them")
    folder, condition = TrainingFolder(config), conditions(config, images)
    folder.recorded()
    with folder.alone():
        go_on(config, images, condition, folder, told)
    return folder.path


def go_on(
    config: TrainDiffusionConfig,
    images: ImageSet,
    condition: Tensor | None,
    folder: TrainingFolder,
    told: Callable[[Path], object],
) -> None:
    """From the last checkpoint, if there is one, to the end."""
    training, latest = config.training, folder.latest()
    resumed = folder.checkpoint(latest.step)[0] if latest else Path(training.resume_checkpoint)
    if latest:
        notice(f"continuing from {resumed}")
    trainer = make_trainer(config, condition, images, resumed)
    images = replace(images, channels=trainer.model.config.in_channels)
    atomic.write_yaml(folder.path / CONFIG, to_dict(config))

    def show() -> None:
        draw(config, trainer, folder, condition)
        told(folder.path)

    if latest and folder.regular(trainer.step) and not folder.samples(trainer.step).exists():
        show()
    told(folder.path)  # lest a kill came before
    batch = picture_batches(config, images, condition, trainer.step)
    with Log(folder.path / LOG, trainer.step, training.log_interval, latest.losses if latest else ()) as log:
        take_steps(trainer, batch, folder, log, show)


def take_steps(
    trainer: Trainer, batch: Callable[[int], Batch], folder: TrainingFolder, log: Log, draw: Callable[[], None]
) -> None:
    """To the end, checkpoint by checkpoint.  When the time is over there is one more, of the step in hand, and at a
    signal one without samples."""
    steps, interval, minutes = trainer.config.lr_anneal_steps, trainer.config.save_interval, trainer.config.max_minutes
    until, end = steps or 10**9, time.monotonic() + 60 * (minutes or math.inf)
    with tqdm(total=steps or None, initial=trainer.step) as progress:
        while trainer.step < until:
            with patient("this step, with a checkpoint", soon=False):
                for losses in trainer.train(batch, min(until, (trainer.step // interval + 1) * interval)):
                    progress.update()
                    if means := log.add(trainer.step, losses):
                        progress.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
                    if asked() or time.monotonic() > end:
                        break
                folder.save(trainer, log.losses)
            stop_if_asked()
            draw()
            if trainer.step < until and time.monotonic() > end:
                left = f" of {steps}" if steps else ""
                notice(f"{minutes:g} minutes are over after step {trainer.step}{left}; the same command goes on")
                return


def training_images(config: TrainDiffusionConfig, channels: int | str = "") -> ImageSet:
    """The pictures to train on.  channels: if they are known already.  Raises FlagError."""
    images = open_pictures(config.pictures, split="train")
    return with_channels(images, channels or config.pictures.image_channels)


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


def make_trainer(config: TrainDiffusionConfig, condition: Tensor | None, images: ImageSet, resumed: Path) -> Trainer:
    """New, begun with given weights, or, where ``resumed`` is the file of a model, continued."""
    training, flags = config.training, {**to_dict(config), "in_channels": images.channels}
    device = choose_device(config.device.device, config.device.gpu)
    if condition is not None:
        flags["num_classes"] = condition.shape[1] if condition.ndim == 2 else len(images.class_names or ())

    def network(path: str | Path) -> UNetModel:
        unet = build_unet(flags, load_state(path) if path else None, str(path))
        own, asked = unet.config.in_channels, config.pictures.image_channels
        if own < images.channels or asked not in ("auto", own):
            raise ValueError(f"{path} is of pictures of {own} channels, but these have {images.channels}")
        return unet.to(device)

    torch.manual_seed(config.device.seed)
    match = re.fullmatch(r"model(\d+)\.pt", resumed.name)
    if training.resume_checkpoint and not match:
        raise FlagError("resume_checkpoint", f"{resumed}: wanted a file named modelNNNNNN.pt")
    with blaming("resume_checkpoint" if training.resume_checkpoint else "output_path" if match else "init_weights"):
        model = network(resumed if match else training.init_weights).requires_grad_()
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
            restore(trainer, optimiser)
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
        x_0 = to_diffusion(torch.stack(pictures))
        return x_0, None if condition is None else condition[indices]

    return batch


def draw(config: TrainDiffusionConfig, trainer: Trainer, folder: TrainingFolder, condition: Tensor | None) -> None:
    """The curve of the loss, then a grid of samples of the moving average."""
    draw_loss(folder.path / LOG, folder.path / LOSS)
    y = None if condition is None else condition[:SAMPLES].to(next(trainer.ema.parameters()).device)
    size = trainer.model.config.in_channels, *spec_of(config.pictures.dataset).shape(config.pictures.image_size)
    process = GaussianDiffusion(config.diffusion, str(min(SAMPLE_STEPS, config.diffusion.diffusion_steps)))
    count = SAMPLES if y is None else len(y)
    pictures = sample(trainer.ema, process, (count, *size), seed=config.device.seed, y=y)
    atomic.write_png(folder.samples(trainer.step), to_pil(make_grid(to_image(pictures).clamp(0, 1).cpu())))
