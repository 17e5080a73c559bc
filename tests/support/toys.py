"""Small networks, pictures and command lines that many tests share."""

import shutil
from copy import copy as replica
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import nn

from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.core.method.attacks import shown, update
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import save_classifier
from ace_counterfactuals.models.loading import save_weights

SIDE = 8
CLASSES = ("boot", "coat", "shirt")
UNET = {
    "image_size": SIDE,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "4",
    "learn_sigma": True,
    "class_cond": False,
    "dropout": 0.0,
    "use_checkpoint": False,
    "num_heads": 4,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_new_attention_order": False,
}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """No layer of which is zero; frozen and in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False).eval()


def toy_unet(dtype: torch.dtype = torch.float32, num_classes: int = 0, **changes) -> nn.Module:
    return randomised(build_unet({**UNET, "num_classes": num_classes, **changes})).to(dtype)


def make_diffusion(timestep_respacing: str = "", *, clip_denoised: bool = True, **settings) -> GaussianDiffusion:
    return GaussianDiffusion(DiffusionConfig(**settings), timestep_respacing, clip_denoised=clip_denoised)


def toy_diffusion(respacing: str = "10", **changes):
    settings = {"diffusion_steps": 100, "timestep_respacing": respacing, "learn_sigma": True}
    return make_diffusion(**{**settings, **changes})


class ToyClassifier(nn.Module):
    """Smooth, so that a numerical derivative can be trusted. (N,) logits if binary."""

    def __init__(self, outputs: int = 3, *, binary: bool = False, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.binary = binary
        layers = [nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(1 if binary else outputs)]
        self.layers = nn.Sequential(*layers)
        self.layers(torch.zeros(1, 3, SIDE, SIDE))
        randomised(self, seed=1).to(dtype)

    def forward(self, image):
        logits = 4 * self.layers(image - 0.5)
        return logits[:, 0] if self.binary else logits


class ToyDenoiser(nn.Module):
    """In place of a U-Net where it matters how often, when and with what it is asked: one smooth layer."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3, padding=1)
        randomised(self, seed=3).to(dtype)

    def forward(self, x_t, timesteps, classes=None):
        return (self.layer(x_t) * (1 + timesteps.view(-1, 1, 1, 1) / 100)).tanh()


@cache
def toy_networks(dtype: torch.dtype) -> dict[str, nn.Module]:
    """The networks of toy tasks: nobody changes them."""
    return {"classifier": ToyClassifier(dtype=dtype), "denoiser": ToyDenoiser(dtype)}


def pictures(count: int = 4, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """(count, 3, 8, 8) of 8-bit levels in [0, 1]."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE))
    return torch.from_numpy(levels).to(dtype) / 255


def iterated(attack, grad_fn, image: torch.Tensor, config: AttackConfig) -> torch.Tensor:
    """The picture after all iterations of an attack by this gradient."""
    variable = attack.encode(image)
    picture = shown(attack, variable, image, None)
    for i in range(config.attack_iterations):
        variable, picture = update(attack, variable, grad_fn(picture, i), image, config)
    return picture


def attack_config(**changes) -> AttackConfig:
    return replace(AttackConfig(attack_iterations=2, attack_step=8.0), **changes)


def sampling_config(**changes) -> SamplingConfig:
    settings = {"sampling_time_fraction": 0.3, "sampling_dilation": 3, "sampling_inpaint": 0.5}
    return SamplingConfig(**{**settings, **changes})


def toy_task(dtype: torch.dtype = torch.float32, **settings) -> Task:
    """Toy networks (no U-Net) and settings: of the attack, of the sampling, and fields of ``Task``."""
    own = {name: settings.pop(name) for name in list(settings) if name in {item.name for item in fields(Task)}}
    of_sampling = {item.name for item in fields(SamplingConfig)}
    sampling = {name: settings.pop(name) for name in list(settings) if name in of_sampling}
    toys = toy_networks(dtype) | {"diffusion": toy_diffusion()}
    return Task(attack=attack_config(**settings), sampling=sampling_config(**sampling), **{**toys, **own})


def relative_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest relative L2 distance of a picture."""
    return ((a - b).flatten(1).double().norm(dim=1) / b.flatten(1).double().norm(dim=1)).max().item()


def write_pictures(folder: Path, count: int = 6, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0) -> Path:
    """``count`` pictures in turn over the folders boot, coat and shirt."""
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        levels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / CLASSES[i % len(CLASSES)] / f"{i:03d}.png")
    return folder


def write_classifier(path: Path, names: tuple[str, ...] = CLASSES, seed: int = 2) -> Path:
    network = randomised(build_classifier("small-4", len(names)), seed)
    save_classifier(path, network, arch="small-4", class_names=names, mean=[0.5] * 3, std=[0.2] * 3, image_size=SIDE)
    return path


@cache
def network_files() -> tuple[bytes, bytes]:
    """Files of the toy U-Net and of a classifier: safetensors, which are read soonest."""
    with TemporaryDirectory() as folder:
        model, classifier = Path(folder, "model.safetensors"), Path(folder, "classifier.safetensors")
        save_weights(model, toy_unet().state_dict())
        return model.read_bytes(), write_classifier(classifier).read_bytes()


class Workshop:
    """A folder with pictures, toy weights and the flags that fit them."""

    def __init__(self, folder: Path):
        self.folder, self.output = folder, folder / "out"
        self.data = write_pictures(folder / "pictures")
        self.model, self.classifier = folder / "model.safetensors", folder / "classifier.safetensors"
        for path, data in zip((self.model, self.classifier), network_files(), strict=True):
            path.write_bytes(data)

    @property
    def flags(self) -> dict:
        unet = {name: value for name, value in UNET.items() if name not in ("dropout", "use_checkpoint")}
        return {
            "dataset": "Folder",
            "data_dir": self.data,
            "model_path": self.model,
            "classifier_path": self.classifier,
            "output_path": self.output,
            "device": "cpu",
            "num_workers": 0,
            "batch_size": 2,
            "attack_iterations": 1,
            "attack_step": 8,
            "diffusion_steps": 100,
            "timestep_respacing": "10",
            "sampling_time_fraction": 0.2,
            "sampling_dilation": 3,
            **unet,
        }

    def arguments(self, **changes) -> list[str]:
        flags = {**self.flags, **changes}
        return [part for name, value in flags.items() if value is not None for part in (f"--{name}", str(value))]

    def run(self, **changes) -> int:
        """main.py's exit code; its errors are raised."""
        return main(self.arguments(**changes))

    def exit_code(self, **changes) -> int:
        """The exit code as a shell would see it, errors printed."""
        return exit_code(lambda: main(self.arguments(**changes)))

    def copy(self, folder: Path) -> "Workshop":
        """The same with a copy of what it has put out."""
        copy = replica(self)
        copy.output = folder / "out"
        shutil.copytree(self.output, copy.output)
        return copy

    def results(self, exp_name: str = "exp") -> Path:
        return self.output / "Results" / exp_name


def exit_code(script) -> int:
    try:
        run_script(script)
    except SystemExit as stopped:
        return stopped.code


def tree(folder: Path, *, without: tuple[str, ...] = ("log",)) -> dict[str, bytes]:
    """Every file's content by its path; ``without`` folders of these names, or files."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in files.items() if not set(name.parts) & set(without)}
