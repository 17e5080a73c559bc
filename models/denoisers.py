"""Sources of diffusion models: each is a function that returns a denoiser and the process that it was trained on."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base.presets import read_settings
from ace_counterfactuals.core.base.runtime import half_precision
from ace_counterfactuals.core.base.settings import FlagError, flag, flag_items, from_dict, group, is_function, to_dict
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet, differing, read_flags
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.lean import laid_out
from ace_counterfactuals.guided_diffusion.unet import Deep, UNetModel
from ace_counterfactuals.models import coded, denoising_diffusion, diffusers_folder
from ace_counterfactuals.models.loading import WeightsError, describe, load_state
from ace_counterfactuals.models.student import Student
from ace_counterfactuals.models.told import Given, Said, beside, newest, settled


@dataclass(frozen=True, kw_only=True)
class SizeConfig:
    """Of the pictures that a network was trained on."""

    image_size: int = flag(256, "side of the pictures in pixels", low=1, told=True)


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """What ``load_denoiser`` takes beside the source."""

    size: SizeConfig = group(SizeConfig, "pictures")
    model: ModelConfig = group(ModelConfig, "U-Net")
    diffusion: DiffusionConfig = group(DiffusionConfig, "diffusion process")


@dataclass(frozen=True)
class DiffusionModel:
    """A denoiser with its process, frozen and in eval mode.

    network: x_t (N, C, H, W) in [-1, 1], steps (N,) of the whole chain, classes (N,) or None -> (N, C, H, W), or
    (N, 2C, H, W) where the process has ``learn_sigma``.  channels: C, 1 or 3.
    made_of: ``load_denoiser``'s source, as model_path, and its settings, by name.
    student: a small network in its place in an attack's gradients (``models.student``).
    half: whether ``to`` puts a U-Net's torso in half precision, where the device computes that fast.
    """

    network: nn.Module
    process: GaussianDiffusion
    class_cond: bool = False
    half: bool = False
    channels: int = 3
    student: Student | None = None
    made_of: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, x_t: Tensor, steps: Tensor, classes: Tensor | None = None, **kept: Deep) -> Tensor:
        return self.network(x_t, steps, classes, **kept)

    def respaced(self, timestep_respacing: str, *, clip_denoised: bool | None = None) -> "DiffusionModel":
        """With a chain of fewer steps ('' is all, '25' evenly spaced), clipping or not.  Raises FlagError."""
        return replace(self, process=self.process.respaced(timestep_respacing, clip_denoised=clip_denoised))

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "DiffusionModel":
        """On a device and in a type of numbers, the torso in half precision if that was asked for."""
        network = self.network.to(device, dtype)
        if isinstance(network, UNetModel):
            laid_out(network)
            if self.half:
                network.torso_to(half_precision(torch.device(device)))
        student = self.student and laid_out(self.student.to(device, dtype))
        return replace(self, network=network, student=student)


class Source(NamedTuple):
    """takes: whether the source reads what is given; load: (what is given, flags) -> its model, on the CPU.

    process: the process of its model alone, without reading weights; by the flags if not given.
    said: what lies beside it says of the flags.  weights: (what is given, all flags) -> those that its weights tell
    otherwise, None if there are none to be read.  needed: words -> flags of which one must be given or said.
    """

    takes: Callable[[Any], bool]
    load: Callable[[Any, DenoiserConfig], DiffusionModel]
    process: Callable[[Any, DenoiserConfig], GaussianDiffusion] = lambda _, config: GaussianDiffusion(config.diffusion)
    said: Callable[[Any], Said] = lambda _: Said()
    weights: Callable[[Any, Mapping[str, Any]], Mapping[str, Any] | None] = lambda *_: {}
    needed: Mapping[str, tuple[str, ...]] = {}


def load_denoiser(source, preset: str | None = None, **flags) -> DiffusionModel:
    """The diffusion model in ``source`` with the process that it was trained on, on the CPU.

    source: a checkpoint of guided-diffusion, as a path or a URL, or a folder of train_diffusion.py; a folder of
    diffusers; FILE.py:FUNCTION, which is run; or what another of ``SOURCES`` takes.
    preset: a name or a YAML file, as --preset takes it, whose settings of the network and its process are used.
    flags: fields of ``ModelConfig`` and ``DiffusionConfig``, and ``image_size``; they go before the preset.  What is
    not given is read from what lies beside the weights and from their shapes.
    Raises FlagError for a setting that is none or does not fit the file, saying what the file wants, and ValueError
    for a file that holds no such model, or where something is neither told nor given.
    """
    source, typed = newest(source), read_settings(DenoiserConfig, flags)
    others = read_settings(DenoiserConfig, {}, preset)
    values = settle(source, Given(typed, {name: value for name, value in others.items() if name not in typed}))
    return load_settled(source, **values)


def load_settled(source, **flags) -> DiffusionModel:
    """The same by the flags alone, and their defaults."""
    config = from_dict(DenoiserConfig, read_settings(DenoiserConfig, flags))
    model = _source(source).load(source, config)
    return replace(model, made_of={"model_path": str(source), **to_dict(config)})


def load_process(source, **flags) -> GaussianDiffusion:
    """The process of ``load_settled(source, **flags)``, without its network."""
    return _source(source).process(source, from_dict(DenoiserConfig, read_settings(DenoiserConfig, flags)))


def settle(source, given: Given) -> dict[str, Any]:
    """The flags of the model in ``source`` that are given or told, as ``told.settled`` decides."""
    one = _source(source)

    def told_by_weights(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return one.weights(source, {**to_dict(DenoiserConfig()), **values})

    try:
        return settled(given, one.said(source), told_by_weights, one.needed)
    except FlagError:
        raise
    except ValueError as error:
        raise WeightsError(f"{source}: {error}") from None


def _source(source) -> Source:
    return next(one for one in SOURCES if one.takes(source))


def load_diffusers(folder, config: DenoiserConfig) -> DiffusionModel:
    """A folder of diffusers, whose process is its scheduler's.  Raises FlagError where flags contradict it."""
    network, process, channels, conditional = diffusers_folder.load_folder(
        folder, config.size.image_size, config.diffusion
    )
    if conditional != config.model.class_cond:
        kind = "takes classes" if conditional else "takes no classes"
        raise FlagError("class_cond", f"{config.model.class_cond}: {folder} {kind}; give {conditional}")
    return DiffusionModel(network, process, conditional, channels=channels)


def load_code(source, config: DenoiserConfig) -> DiffusionModel:
    """What a function of the user's returns."""
    network, process, channels = coded.load_coded(str(source), config.size.image_size, config.diffusion)
    return DiffusionModel(network, process, config.model.class_cond, channels=channels)


def load_denoising_diffusion(path, config: DenoiserConfig) -> DiffusionModel:
    """A file of denoising-diffusion-pytorch, which has its betas."""
    network, process, channels = denoising_diffusion.load(path, config.diffusion)
    return DiffusionModel(network, process, channels=channels)


def load_checkpoint(path, config: DenoiserConfig) -> DiffusionModel:
    """A file of guided-diffusion's kind; the flags that it does not tell are taken as they are."""
    process = GaussianDiffusion(config.diffusion)
    state = load_state(path)
    if "time_embed.0.weight" not in state:
        raise WeightsError(f"{path} is no diffusion U-Net, but {describe(state)}")
    network = laid_out(build_unet(to_dict(config), state, str(path)))
    model = config.model
    return DiffusionModel(network, process, model.class_cond, model.use_fp16, network.config.in_channels)


def read_weights(path, flags: Mapping[str, Any]) -> dict[str, Any] | None:
    """What names and shapes of a U-Net tell otherwise than the flags; None of a file that loading will refuse."""
    if not os.path.isfile(path):
        return None
    try:
        told = read_flags(load_state(path), flags["image_size"], str(path))
    except ValueError:
        return None
    return {name: told[name] for name in told if name in differing(flags, told)}


UNTOLD = {
    "image_size": ("image_size",),
    "diffusion_steps and noise_schedule": ("diffusion_steps", "noise_schedule"),
    "num_heads or num_head_channels": ("num_heads", "num_head_channels"),
}
"""What no shapes tell, and a wrong guess of makes noise"""
SOURCES = [
    Source(lambda source: is_function(str(source)), load_code, needed={"image_size": ("image_size",)}),
    Source(
        diffusers_folder.is_folder,
        load_diffusers,
        lambda folder, config: diffusers_folder.read_process(folder, config.diffusion),
        said=lambda folder: Said(diffusers_folder.read_said(folder), str(folder)),
        needed={words: names for words, names in UNTOLD.items() if "num_heads" not in names},
    ),
    Source(
        denoising_diffusion.is_checkpoint,
        load_denoising_diffusion,
        lambda path, config: denoising_diffusion.read(path).process(config.diffusion),
        said=lambda path: Said({"class_cond": False, **denoising_diffusion.read(path).flags}, str(path)),
        needed={"image_size": ("image_size",)},
    ),
    Source(
        lambda source: True,
        load_checkpoint,
        said=lambda path: beside(path, {name: item for name, item in flag_items(DenoiserConfig).items() if item.told}),
        weights=read_weights,
        needed=UNTOLD,
    ),
]
"""The first that takes a source reads it: another one is inserted at the front."""
