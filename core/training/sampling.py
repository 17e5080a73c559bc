"""Drawing pictures from a diffusion model into a folder: each by its number and the seed alone."""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.reading import read_yaml
from ace_counterfactuals.core.base.runtime import choose_device
from ace_counterfactuals.core.base.settings import FlagError, blaming, flag_items, flags_of, from_dict, to_dict
from ace_counterfactuals.core.base.signals import patient
from ace_counterfactuals.core.data.datasets import DATASETS
from ace_counterfactuals.core.data.pictures import decode, to_pil, to_tensor
from ace_counterfactuals.core.method.filtering import Filter, step_tensor, to_image
from ace_counterfactuals.core.method.noise import Draw, NoiseFn, image_noise
from ace_counterfactuals.core.training import parallel
from ace_counterfactuals.core.training.checkpoints import CONFIG, alone
from ace_counterfactuals.core.training.config import DrawingConfig, TrainDiffusionConfig
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models import denoisers
from ace_counterfactuals.models.denoisers import DenoiserConfig, DiffusionModel
from ace_counterfactuals.models.loading import digest, is_url

GRID, AT_ONCE = 64, 16  # pictures in grid.png, and at once if batch_size is not given
SHORT = 50  # steps
SETTINGS = "samples.yaml"
USED = {*flags_of(DrawingConfig), "output_path", "batch_size", "dataset", "device", "gpu", "num_workers", "seed"}
USED |= {name for name, item in flag_items(DenoiserConfig).items() if item.told or name == "use_fp16"}
"""Flags that drawing goes by; of a preset all others are left"""


def settled(config: TrainDiffusionConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> TrainDiffusionConfig:
    """With what the files of the model say of it.

    typed, others: flags by who gave them.  Raises FlagError for a flag that drawing has no use for.
    """
    for name in typed:
        if name not in USED:
            raise FlagError(name, f"{typed[name]}: of no use with sample, which trains nothing; leave it out")
    if not config.drawing.model_path:
        raise FlagError("model_path", "is not given: with sample, the checkpoint or folder to draw from")
    found = said_of_model(config, typed, others)
    if "batch_size" not in typed:
        found["batch_size"] = AT_ONCE
    if "dataset" not in typed:  # which tells whether pictures are wide
        with suppress(OSError, ValueError, AttributeError):
            said = read_yaml(Path(found["model_path"]).with_name(CONFIG)).get("dataset")
            found |= {"dataset": said} if said in DATASETS else {}
    return from_dict(TrainDiffusionConfig, to_dict(config) | found)


def said_of_model(config: TrainDiffusionConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The newest file of ``model_path``, and the flags that its files say.  Raises FlagError."""
    path, known = denoisers.newest(config.drawing.model_path), flag_items(DenoiserConfig)
    mine, theirs = ({name: one[name] for name in one if name in known} for one in (typed, others))
    with blaming("model_path"):
        return denoisers.settle(path, denoisers.Given(mine, theirs)) | {"model_path": str(path)}


def open_model(config: TrainDiffusionConfig, device: torch.device) -> DiffusionModel:
    """That of ``model_path``, on the device.  Raises FlagError."""
    flags = {**asdict(config.model), **asdict(config.diffusion), "image_size": config.pictures.image_size}
    with blaming("model_path"):
        return denoisers.load_settled(config.drawing.model_path, **flags).to(device)


def draw(config: TrainDiffusionConfig) -> Path:
    """Draw what is not there yet of ``sample`` pictures; returns the folder.  Raises FlagError."""
    drawing, device = config.drawing, choose_device(config.device.device, config.device.gpu)
    folder, count = Path(config.training.output_path), config.drawing.sample
    guard.give(folder)
    model = open_model(config, device).respaced(drawing.timestep_respacing)
    classes = conditions(model, drawing.sample_classes, count)
    with alone(folder) if parallel.rank() == 0 else nullcontext():
        if parallel.rank() == 0:
            claim(folder, config)
        parallel.wait()  # for the first
        missing = [i for i in range(count) if not picture_path(folder, i).exists()]
        parallel.wait()  # lest some are there already when another one looks
        own, size = missing[parallel.rank() :: parallel.size()], config.training.batch_size
        for begin in tqdm(range(0, len(own), size), "drawing", disable=None if parallel.rank() == 0 else True):
            indices = own[begin : begin + size]
            y = None if classes is None else classes[indices].to(device)
            with patient("the pictures in hand", soon=False):
                drawn = sampled(model, indices, config, y)
                images = {picture_path(folder, i): to_pil(one) for i, one in zip(indices, drawn.cpu(), strict=True)}
                for path, data in atomic.pngs(images).items():
                    atomic.write_bytes(path, data)
        parallel.wait()
        if parallel.rank() == 0:
            finish(folder, count, classes)
    return folder


def picture_path(folder: Path, index: int) -> Path:
    return folder / f"{index:07d}.png"


def claim(folder: Path, config: TrainDiffusionConfig) -> None:
    """Begin a folder, or go on in it.  Raises FlagError for one of other samples, or of other pictures."""
    path, file = config.drawing.model_path, folder / SETTINGS
    known = {name for name in USED if flag_items(TrainDiffusionConfig)[name].told}
    known |= {"dataset", "model_path", "timestep_respacing", "use_ddim", "sample_classes", "seed", "use_fp16"}
    made = {name: value for name, value in to_dict(config).items() if name in known}
    if not is_url(path) and Path(path).exists():
        made["model"] = digest(path)
    try:
        before = read_yaml(file)
    except FileNotFoundError:
        if picture_path(folder, 0).exists():
            raise FlagError("output_path", f"{folder}: has pictures of something else; give another folder") from None
        atomic.write_yaml(file, made)
        return
    with blaming("output_path"):
        if not isinstance(before, dict):
            raise ValueError(f"{file}: is of something else; give another folder")
    if other := [name for name in made if before.get(name) != made[name]]:
        raise FlagError("output_path", f"{folder}: has samples of another {', '.join(other)}; give another folder")


def conditions(model: DiffusionModel, text: str, count: int) -> Tensor | None:
    """Of each picture: classes (count,), or attributes (count, n) where some are joined by +.  Raises FlagError."""
    number = getattr(getattr(model.network, "label_emb", None), "num_embeddings", 0) if model.class_cond else 0
    if not number:
        if text:
            raise FlagError("sample_classes", f"{text}: the model takes no classes")
        if model.class_cond:
            raise FlagError("model_path", "is conditional, but does not tell on how many classes")
        return None
    items = [item.split("+") for item in text.split(",")] if text else [[str(i)] for i in range(number)]
    if not all(part.strip().isdecimal() and int(part) < number for item in items for part in item):
        raise FlagError("sample_classes", f"{text}: wanted numbers from 0 to {number - 1}, such as 0,1 or 0+1")
    chosen = torch.zeros(len(items), number)
    for row, item in zip(chosen, items, strict=True):
        row[[int(part) for part in item]] = 1
    chosen = chosen if any(len(item) > 1 for item in items) else chosen.argmax(1)
    return chosen[torch.arange(count) % len(items)]


@torch.no_grad()
def sampled(model: DiffusionModel, indices: list[int], config: TrainDiffusionConfig, y: Tensor | None) -> Tensor:
    """The pictures of these numbers, (N, C, H, W) in [0, 1], from pure noise."""
    process, noise = model.process, image_noise(config.device.seed, indices, 0)
    chain, x = begun(model.network, process, (len(indices), model.channels, *config.pictures.shape), noise, y)
    if not config.drawing.use_ddim:
        return to_image(chain.denoise(x, noise)).clamp(0, 1)
    for step in reversed(range(chain.steps)):
        t = step_tensor(step, x)
        x_0 = process.p_mean_variance(model.network, x, t, y).pred_xstart
        x = process.ddim_step(x, x_0, t)
    return to_image(x).clamp(0, 1)


@torch.no_grad()
def sample(
    network: nn.Module, process: GaussianDiffusion, shape: tuple[int, ...], *, seed: int, y: Tensor | None = None
) -> Tensor:
    """Draw a batch of pictures in [-1, 1] from pure noise by ancestral sampling."""
    rng = np.random.default_rng(seed)

    def noise(draw: Draw, t: int, x: Tensor) -> Tensor:
        return torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32)).to(x)

    chain, x_t = begun(network, process, shape, noise, y)
    return chain.denoise(x_t, noise)


def begun(
    network: nn.Module, process: GaussianDiffusion, shape: tuple[int, ...], noise: NoiseFn, y: Tensor | None
) -> tuple[Filter, Tensor]:
    """All steps of a chain, and the pure noise that they begin with."""
    chain = Filter(process, network, process.num_timesteps, y)
    return chain, noise(Draw.START, chain.steps, torch.empty(shape, device=next(network.parameters()).device))


def short_chain(config: DiffusionConfig) -> GaussianDiffusion:
    """Of steps enough to look at samples."""
    return GaussianDiffusion(config, str(min(SHORT, config.diffusion_steps)))


def finish(folder: Path, count: int, classes: Tensor | None) -> None:
    """The grid, and a table of the classes, which --dataset CSV reads."""
    first = [to_tensor(decode(picture_path(folder, i))) for i in range(min(count, GRID))]
    atomic.write_png(folder / "grid.png", to_pil(make_grid(first)))
    if classes is not None:
        told = ["+".join(map(str, row.nonzero().flatten().tolist())) if row.ndim else str(int(row)) for row in classes]
        rows = [{"file": picture_path(folder, i).name, "label": label} for i, label in enumerate(told)]
        atomic.write_csv(folder / "labels.csv", rows, ["file", "label"])
