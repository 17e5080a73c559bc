"""Training a diffusion model: a folder of checkpoints, each with a grid of samples, and log.csv."""

import itertools
import logging
import math
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.runtime import choose_device, half_precision, notice
from ace_counterfactuals.core.base.settings import FlagError, blaming, to_dict
from ace_counterfactuals.core.base.signals import ask, asked, patient, request, stop_if_asked
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.data.imageset import ImageSet, open_pictures, prefetch, with_channels
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.method.filtering import to_diffusion, to_image
from ace_counterfactuals.core.training import parallel
from ace_counterfactuals.core.training.checkpoints import (
    CONFIG,
    LOG,
    LOSS,
    Checkpoint,
    Log,
    TrainingFolder,
    draw_loss,
    restore,
)
from ace_counterfactuals.core.training.config import TrainDiffusionConfig, ema_rates
from ace_counterfactuals.core.training.distilling import SHOWN, Distillation, begun, distillation, looked_at
from ace_counterfactuals.core.training.frechet import FID, Frechet, write_distance
from ace_counterfactuals.core.training.sampling import sample, short_chain
from ace_counterfactuals.core.training.trainer import PARTS, Batch, Network, Trainer, mirroring, shuffled
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.lean import laid_out
from ace_counterfactuals.models.loading import load_state
from ace_counterfactuals.models.student import load_student

SAMPLES = 32


def train(config: TrainDiffusionConfig, told: Callable[[Path], object] = lambda _: None) -> Path:
    """Train until ``lr_anneal_steps``, or until stopped where that is 0, or until ``max_minutes`` are over; returns the
    folder of the checkpoints.

    told: is called with the folder at the beginning and whenever there are new samples in it.
    The same command goes on from the last checkpoint, and a signal leaves one.
    Raises FlagError, and FloatingPointError where the loss is no number.
    """
    training, processes = config.training, parallel.size()
    if training.batch_size % processes:
        nearest = max(round(training.batch_size / processes), 1) * processes
        raise FlagError("batch_size", f"{training.batch_size}: {processes} processes share it evenly; give {nearest}")
    images = training_images(config)
    if len(images) < training.batch_size:
        notice(f"{len(images)} pictures for a batch of {training.batch_size}: a step takes some of them more than once")
    if training.init_weights and training.resume_checkpoint:
        raise FlagError("init_weights", "begins anew, resume_checkpoint continues; give one of them")
    folder, condition = TrainingFolder(config), conditions(config, images)
    folder.recorded()
    first = parallel.rank() == 0
    with folder.alone() if first else nullcontext():
        go_on(config, images, condition, folder, told if first else lambda _: None)
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
    resumed = folder.checkpoint(latest.step).model if latest else Path(training.resume_checkpoint)
    if latest:
        notice(f"continuing from {resumed}")
    trainer = make_trainer(config, condition, images, resumed)
    images = replace(images, channels=trainer.model.config.in_channels)
    if parallel.rank() == 0:
        atomic.write_yaml(folder.path / CONFIG, to_dict(config))

    measured = Frechet(config, images, condition, trainer.device) if training.fid_network else None

    def show() -> None:
        draw(config, trainer, folder, images, condition)
        if measured and takes_part(config):
            write_distance(folder.path / FID, trainer.step, measured.of(trainer.ema))
        told(folder.path)

    missing = latest and folder.regular(trainer.step) and not folder.samples(trainer.step).exists()
    if parallel.largest(bool(missing))[0]:
        show()
    told(folder.path)  # lest a kill came before
    batch = picture_batches(config, images, condition, trainer.step)
    if parallel.rank():
        take_steps(trainer, batch, folder, None, show)
        return
    with Log(folder.path / LOG, trainer.step, training.log_interval, latest.losses if latest else ()) as log:
        take_steps(trainer, batch, folder, log, show)


def take_steps(
    trainer: Trainer, batch: Callable[[int], Batch], folder: TrainingFolder, log: Log | None, draw: Callable[[], None]
) -> None:
    """To the end, checkpoint by checkpoint.  When the time is over there is one more, of the step in hand, and at a
    signal, or ``save_seconds`` after the last, one without samples.  log: of the first process."""
    steps, interval, minutes = trainer.config.lr_anneal_steps, trainer.config.save_interval, trainer.config.max_minutes
    until, end, over = steps or 10**9, time.monotonic() + 60 * (minutes or math.inf), False
    with tqdm(total=steps or None, initial=trainer.step, disable=log is None) as progress:
        while trainer.step < until:
            due = time.monotonic() + (trainer.config.save_seconds or math.inf)
            with patient("this step, with a checkpoint", soon=False):
                for losses in trainer.train(batch, min(until, (trainer.step // interval + 1) * interval)):
                    progress.update()
                    if log and (means := log.add(trainer.step, losses)):
                        progress.set_postfix({name: f"{means[name]:.4f}" for name in PARTS if name in means})
                    over, saved = agreed(end, due)
                    if asked() or over or saved:
                        break
                folder.save(trainer, log.losses if log else ())
            stop_if_asked()
            if over or folder.regular(trainer.step):
                draw()
            if trainer.step < until and over:
                left = f" of {steps}" if steps else ""
                notice(f"{minutes:g} minutes are over after step {trainer.step}{left}; the same command goes on")
                return


def agreed(*times: float) -> list[bool]:
    """Whether it is after each of these times by a process's clock, as all of them see it, and a signal, too."""
    number, *passed = parallel.largest(request.asked or 0, *(time.monotonic() > one for one in times))
    ask(int(number))
    return [bool(one) for one in passed]


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

    process = distillation(config, device) if config.distilling.distill else GaussianDiffusion(config.diffusion)

    def network(path: str | Path) -> Network:
        if isinstance(process, Distillation):
            student = load_student(path) if path else begun(config, process, images.channels)
            return laid_out(student.to(device))
        unet = build_unet(flags, load_state(path) if path else None, str(path))
        own, asked = unet.config.in_channels, config.pictures.image_channels
        if own < images.channels or asked not in ("auto", own):
            raise ValueError(f"{path} is of pictures of {own} channels, but these have {images.channels}")
        return laid_out(unet.to(device))

    torch.manual_seed(config.device.seed)
    match = re.fullmatch(r"model(\d+)\.pt", resumed.name)
    if training.resume_checkpoint and not match:
        raise FlagError("resume_checkpoint", f"{resumed}: wanted a file named modelNNNNNN.pt")
    with blaming("resume_checkpoint" if training.resume_checkpoint else "output_path" if match else "init_weights"):
        model = network(resumed if match else training.init_weights).requires_grad_()
        found = Checkpoint(resumed.parent, int(match[1]), ema_rates(training.ema_rate)) if match else None
        trainer = Trainer(
            model,
            process,
            training,
            seed=config.device.seed,
            precision=half_precision(device) if config.model.use_fp16 else torch.float32,
            averages={rate: network(path) for rate, path in found.emas.items()} if found else None,
        )
        if found:
            trainer.step = found.step
            restore(trainer, found.optimiser)
    return trainer


def picture_batches(
    config: TrainDiffusionConfig, images: ImageSet, condition: Tensor | None, first_step: int
) -> Callable[[int], Batch]:
    """step -> its pictures, decoded ahead; an unreadable one is left out, with a notice."""
    size, seed = config.training.batch_size, config.device.seed
    positions, own = shuffled(len(images), size, seed), parallel.share(size)
    stream = itertools.chain.from_iterable(positions(step)[own] for step in itertools.count(first_step))
    samples = iter(prefetch(images, map(int, stream), config.device.num_workers, ahead=own.stop - own.start))
    flip = config.training.random_flip and spec_of(config.pictures.dataset).mirrored
    none = torch.empty(0, images.channels, *config.pictures.shape)

    def batch(step: int) -> Batch:
        pictures, indices = [], []
        mirrors = mirroring(seed, step, size)[own]
        for mirrored, decoded in zip(mirrors, itertools.islice(samples, len(mirrors)), strict=True):
            if isinstance(decoded, UnreadableImage):
                notice(f"left out: {decoded}", level=logging.WARNING)
                continue
            pictures.append(decoded.image.flip(-1) if flip and mirrored else decoded.image)
            indices.append(decoded.index)
        x_0 = to_diffusion(torch.stack(pictures) if pictures else none)
        return x_0, None if condition is None else condition[indices]

    return batch


def takes_part(config: TrainDiffusionConfig) -> bool:
    """Whether this process is asked for samples."""
    return parallel.rank() == 0 or config.training.dist == "fsdp"


def draw(
    config: TrainDiffusionConfig, trainer: Trainer, folder: TrainingFolder, images: ImageSet, condition: Tensor | None
) -> None:
    """The curve of the loss, then a grid of samples of the moving average.  The first process writes them; the others
    have to take part where the average's weights are shared."""
    if not takes_part(config):
        return
    if parallel.rank() == 0:
        draw_loss(folder.path / LOG, folder.path / LOSS)
    if isinstance(trainer.diffusion, Distillation):
        first = torch.stack([images[i].image for i in range(min(SHOWN, len(images)))]).to(trainer.device)
        seen = looked_at(trainer.ema, trainer.diffusion, to_diffusion(first), config.device.seed)
        if parallel.rank() == 0:
            write_grid(folder.samples(trainer.step), seen, columns=len(first))
        return
    y = None if condition is None else condition[:SAMPLES].to(next(trainer.model.parameters()).device)
    size, process = (trainer.model.config.in_channels, *config.pictures.shape), short_chain(config.diffusion)
    count = SAMPLES if y is None else len(y)
    pictures = sample(trainer.ema, process, (count, *size), seed=config.device.seed, y=y)
    if parallel.rank() == 0:
        write_grid(folder.samples(trainer.step), to_image(pictures).clamp(0, 1))


def write_grid(path: Path, pictures: Tensor, columns: int = 8) -> None:
    """Of pictures (N, C, H, W) in [0, 1]."""
    atomic.write_png(path, to_pil(make_grid(pictures.cpu(), nrow=columns)))
