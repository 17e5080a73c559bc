"""Train a diffusion model on a data set, or continue: checkpoints load into main.py with the same flags."""

import csv
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.runtime import choose_device, half_precision, notice
from ace_counterfactuals.core.base.settings import UserError, blaming, to_dict
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.data.imageset import ImageSet, open_dataset, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.method.filtering import to_diffusion, to_image
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.guided_diffusion.training import Batch, Trainer, TrainingOptions, sample, shuffled
from ace_counterfactuals.models.denoisers import build_network, make_process
from ace_counterfactuals.models.loading import load_state, load_weights, save_weights

SAMPLES, SAMPLE_STEPS = 32, "50"


@program(TrainDiffusionConfig, __doc__)
def main(config: TrainDiffusionConfig) -> int:
    training = config.training
    images = open_dataset(
        config.pictures.dataset, config.pictures.data_dir, image_size=config.pictures.image_size, split="train"
    )
    folder = Path(training.output_path)
    if not training.resume_checkpoint and any(folder.glob("model*.pt")):
        raise UserError(f"--output_path {folder} has checkpoints; give one as --resume_checkpoint, or another folder")
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_yaml(folder / "config.yaml", to_dict(config))
    trainer, condition = make_trainer(config, images)
    until = training.lr_anneal_steps or 10**9
    batch = picture_batches(config, images, condition, trainer.step)
    with open(folder / "log.csv", "a", newline="") as file, tqdm(total=until, initial=trainer.step) as progress:
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
    print(f"checkpoints, samples and log.csv are in {folder}")
    return 0


def make_trainer(config: TrainDiffusionConfig, images: ImageSet) -> tuple[Trainer, Tensor | None]:
    """The trainer, new or continued, and the condition of each picture of the data set, if there is one."""
    training, flags = config.training, to_dict(config)
    device = choose_device(config.device.device, config.device.gpu)
    condition = conditions(config, images) if config.model.class_cond else None
    if condition is not None:
        flags["num_classes"] = condition.shape[1] if condition.ndim == 2 else len(images.class_names)
    if training.init_weights and training.resume_checkpoint:
        raise UserError("--init_weights begins anew, --resume_checkpoint continues; give one of them")
    torch.manual_seed(config.device.seed)
    path = training.init_weights
    with blaming("init_weights"):
        weights = load_state(path) if path else None
        model = build_network(flags, weights, path)
    model = model.requires_grad_().to(device, memory_format=torch.channels_last)
    options = TrainingOptions(
        seed=config.device.seed,
        init_step=None if training.init_step == -1 else training.init_step,
        precision=half_precision(device, on_cuda=torch.bfloat16) if config.model.use_fp16 else torch.float32,
        **{
            name: getattr(training, name)
            for name in ("batch_size", "microbatch", "lr", "weight_decay", "lr_anneal_steps", "ema_rate")
        },
    )
    trainer = Trainer(model, make_process(config.diffusion), options)
    if training.resume_checkpoint:
        resume(trainer, Path(training.resume_checkpoint), training.ema_rate)
    return trainer, condition


def conditions(config: TrainDiffusionConfig, images: ImageSet) -> Tensor:
    """By index: the class of each picture, or the 40 attributes of each face."""
    pictures = config.pictures
    if spec_of(pictures.dataset).faces:
        return torch.from_numpy(celeba_attributes(pictures.data_dir, pictures.dataset)).float()
    if images.binary or images.class_names is None:
        raise UserError(f"--class_cond True: --dataset {pictures.dataset} has no classes to condition on")
    condition = torch.zeros(max(entry.index for entry in images.records) + 1, dtype=torch.int64)
    for entry in images.records:
        condition[entry.index] = entry.label
    return condition


def picture_batches(
    config: TrainDiffusionConfig, images: ImageSet, condition: Tensor | None, first_step: int
) -> Callable[[int], Batch]:
    """step -> its pictures, decoded ahead; an unreadable one is left out, with a notice."""
    training, seed = config.training, config.device.seed
    device = choose_device(config.device.device, config.device.gpu)
    positions = shuffled(len(images), training.batch_size, seed)
    stream = itertools.chain.from_iterable(positions(step) for step in itertools.count(first_step))
    samples: Iterator = prefetch(images, (int(position) for position in stream), config.device.num_workers)
    flip = training.random_flip and spec_of(config.pictures.dataset).mirrored

    def batch(step: int) -> Batch:
        mirrored = np.random.default_rng([seed, step, 1]).random(training.batch_size) < 0.5
        pictures, indices = [], []
        for i, decoded in enumerate(itertools.islice(samples, training.batch_size)):
            if isinstance(decoded, UnreadableImage):
                notice(f"left out: {decoded}")
                continue
            pictures.append(decoded.image.flip(-1) if flip and mirrored[i] else decoded.image)
            indices.append(decoded.index)
        if not pictures:
            raise UserError(f"--data_dir {config.pictures.data_dir}: no picture of step {step} can be read")
        x_0 = to_diffusion(torch.stack(pictures)).to(device, memory_format=torch.channels_last)
        return x_0, None if condition is None else condition[indices].to(device)

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
    save_weights(optimiser, trainer.state_dict())
    shape = (SAMPLES, 3, *spec_of(config.pictures.dataset).shape(config.pictures.image_size))
    y = None if condition is None else condition[:SAMPLES].to(next(trainer.ema.parameters()).device)
    shape = shape if y is None else (len(y), *shape[1:])
    steps = min(int(SAMPLE_STEPS), config.diffusion.diffusion_steps)
    pictures = sample(trainer.ema, make_process(config.diffusion, str(steps)), shape, seed=config.device.seed, y=y)
    atomic.write_png(folder / f"samples{trainer.step:06d}.png", to_pil(make_grid(to_image(pictures).clamp(0, 1).cpu())))


def resume(trainer: Trainer, path: Path, ema_rate: float) -> None:
    match = re.fullmatch(r"model(\d+)\.pt", path.name)
    if not match:
        raise UserError(f"--resume_checkpoint {path}: wanted a file named modelNNNNNN.pt")
    model, ema, optimiser = checkpoint_paths(path.parent, int(match[1]), ema_rate)
    trainer.model.load_state_dict(load_state(model))
    trainer.ema.load_state_dict(load_state(ema))
    trainer.load_state_dict(load_weights(optimiser))


if __name__ == "__main__":
    run_script(main)
