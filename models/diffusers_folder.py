"""A folder of diffusers: UNet2DModel and the schedule of its training, as a denoiser."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.schedule import make_betas
from ace_counterfactuals.models.architectures import package
from ace_counterfactuals.models.loading import WeightsError, load_into, load_state, read_object

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
SCHEDULER = "scheduler/scheduler_config.json"
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def is_folder(source) -> bool:
    """Whether it is a folder with a U-Net of diffusers, of a pipeline or alone."""
    return any(Path(source, *below, "config.json").is_file() for below in (("unet",), ()))


def read_process(source, config: DiffusionConfig) -> GaussianDiffusion:
    """The process that the folder's scheduler tells; the flags' where the folder has none.

    Raises WeightsError for a scheduler that is not of a known kind.
    """
    return _process(Path(source) / SCHEDULER, _scheduler(source), config)


def read_said(source) -> dict[str, Any]:
    """The flags that the folder tells.  Raises WeightsError."""
    about, said = read_object(_unet(source) / "config.json"), _scheduler(source)
    found = {"class_cond": about.get("num_class_embeds") is not None, "learn_sigma": False}
    if type(about.get("sample_size")) is int:
        found["image_size"] = about["sample_size"]
    if said is None:
        return found
    process = _process(Path(source) / SCHEDULER, said, DiffusionConfig()).config
    return {**found, "diffusion_steps": process.diffusion_steps, "predict_xstart": process.predict_xstart}


def _unet(source) -> Path:
    """The folder of the network, in a pipeline's or alone."""
    return Path(source) / "unet" if (Path(source) / "unet").is_dir() else Path(source)


def _scheduler(source) -> dict[str, Any] | None:
    """What the folder's scheduler tells, if it has one."""
    file = Path(source) / SCHEDULER
    return read_object(file) if file.is_file() else None


def _process(file: Path, said: dict[str, Any] | None, config: DiffusionConfig) -> GaussianDiffusion:
    if said is None:
        return GaussianDiffusion(replace(config, learn_sigma=False))
    try:
        steps = int(said.get("num_train_timesteps", 1000))
        betas = _betas(said, steps)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{file}: has no schedule of a known kind ({error})") from None
    kind = said.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise WeightsError(f"{file}: prediction_type {kind}, wanted one of {', '.join(PREDICTIONS)}")
    own = replace(config, diffusion_steps=steps, learn_sigma=False, predict_xstart=kind != "epsilon", predict="noise")
    return GaussianDiffusion(replace(own, rescale_timesteps=False), betas=betas)


def _betas(said: dict[str, Any], steps: int) -> np.ndarray:
    """(steps,) by the fields of diffusers' schedulers.  Raises ValueError."""
    if said.get("trained_betas") is not None:
        return np.array(said["trained_betas"], np.float64)
    first, last = float(said.get("beta_start", 0.0001)), float(said.get("beta_end", 0.02))
    schedule = said.get("beta_schedule", "linear")
    if schedule == "linear":
        return np.linspace(first, last, steps)
    if schedule == "scaled_linear":
        return np.linspace(first**0.5, last**0.5, steps) ** 2
    if schedule == "squaredcos_cap_v2":
        return make_betas("cosine", steps)
    raise ValueError(f"beta_schedule {schedule}, wanted linear, scaled_linear or squaredcos_cap_v2")


class Adapted(nn.Module):
    """A UNet2DModel, from x_t (N, C, H, W), steps (N,) and classes (N,) or None to the noise, or to x_0 where it was
    trained on another prediction."""

    def __init__(self, network: nn.Module, process: GaussianDiffusion, prediction: str):
        super().__init__()
        self.network, self.process, self.prediction = network, process, prediction

    def forward(self, x_t: Tensor, steps: Tensor, classes: Tensor | None = None) -> Tensor:
        found = self.network(x_t, steps, class_labels=classes).sample
        if self.prediction != "v_prediction":
            return found
        alpha, sigma = self.process.sqrt_alphas_cumprod, self.process.sqrt_one_minus_alphas_cumprod
        return alpha.at(steps, x_t) * x_t - sigma.at(steps, x_t) * found  # x_0 (Salimans and Ho 2022, appendix D)


def load_folder(source, image_size: int, config: DiffusionConfig) -> tuple[nn.Module, GaussianDiffusion, int, bool]:
    """Network, process, channels, and whether it is class-conditional, on the CPU.

    Raises FlagError for an image_size that is not the network's, WeightsError for what is no such folder.
    """
    folder, said = _unet(source), _scheduler(source)
    about = read_object(folder / "config.json")
    process = _process(Path(source) / SCHEDULER, said, config)
    if about.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise WeightsError(f"{folder}: holds a {about['_class_name']}, wanted diffusers' UNet2DModel")
    diffusers = package("diffusers")
    network = diffusers.UNet2DModel.from_config(about)
    size, channels = network.config.sample_size, network.config.in_channels
    if size not in (None, image_size, [image_size, image_size], [image_size, 2 * image_size]):
        raise FlagError("image_size", f"{image_size}: {source} was trained on pictures of {size}; give that")
    if network.config.out_channels != channels or channels not in (1, 3):
        found = f"{channels} channels to {network.config.out_channels}"
        raise WeightsError(f"{folder}: maps {found}, wanted 1 or 3 to as many")
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise WeightsError(f"{folder}: has no {WEIGHTS[0]}")
    load_into(network, load_state(file), path=file, what="the UNet2DModel that its config.json describes")
    adapted = Adapted(network, process, (said or {}).get("prediction_type", "epsilon")).eval().requires_grad_(False)
    return adapted, process, channels, network.config.num_class_embeds is not None
