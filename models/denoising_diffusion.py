"""Checkpoints of the package denoising-diffusion-pytorch, as its version 2 writes them: its U-Net, and the betas.

Names and shapes tell all of the network, the betas the process, and the weights of its loss what it predicts.
"""

import math
import os
import zipfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.loading import WeightsError, load_into, load_state, unfilled

FIRST, NORM = "init_conv.weight", "downs.0.0.block1.norm.g"
PREFIXES = ("ema.ema_model.model.", "model.model.", "model.")  # a Trainer's average, its model, a GaussianDiffusion
NAMES = (FIRST.encode(), b"mid_attn", b"betas")
LARGEST = 2**24  # bytes of the names in a file


class Norm(nn.Module):
    """To root mean square 1 over the channels, times g."""

    def __init__(self, width: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.g * x.shape[1] ** 0.5


class Block(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(width, out, 3, padding=1), Norm(out)

    def forward(self, x: Tensor, scale: Tensor | float = 0.0, shift: Tensor | float = 0.0) -> Tensor:
        return F.silu(self.norm(self.proj(x)) * (1 + scale) + shift)


class ResBlock(nn.Module):
    def __init__(self, width: int, out: int, time: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * out))
        self.block1, self.block2 = Block(width, out), Block(out, out)
        self.res_conv = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, dim=1)
        return self.block2(self.block1(x, scale, shift)) + self.res_conv(x)


class Attention(nn.Module):
    """Over positions, beside which there are some learned keys and values; linear: of keys and values by channel."""

    def __init__(self, width: int, memory: tuple[int, ...], *, linear: bool):
        super().__init__()
        self.linear, self.heads = linear, memory[1]
        inner = memory[1] * memory[2 if linear else 3]
        self.norm, self.mem_kv = Norm(width), nn.Parameter(torch.zeros(memory))
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        last = nn.Conv2d(inner, width, 1)
        self.to_out = nn.Sequential(last, Norm(width)) if linear else last

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        q, k, v = self.to_qkv(self.norm(x)).view(n, 3, self.heads, -1, height * width).unbind(1)  # (N, heads, d, HW)
        memory = self.mem_kv if self.linear else self.mem_kv.transpose(2, 3)
        k, v = (torch.cat([own.expand(n, -1, -1, -1), part], -1) for own, part in zip(memory, (k, v), strict=True))
        if self.linear:
            q, k = q.softmax(2) * q.shape[2] ** -0.5, k.softmax(3)
            found = (v @ k.transpose(2, 3)) @ q
        else:
            q, k, v = (part.transpose(2, 3).contiguous() for part in (q, k, v))
            found = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return x + self.to_out(found.reshape(n, -1, height, width))


class Unet(nn.Module):
    """x_t (N, C, H, W) and steps (N,) -> (N, C or 2C, H, W).  state: of the network, whose shapes it has."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        levels = len({name.split(".")[1] for name in state if name.startswith("downs.")})
        widths = [len(state[f"downs.{i}.0.block1.proj.weight"]) for i in range(levels)]
        widths.append(len(state["mid_block1.block1.proj.weight"]))
        time, self.width = state["time_mlp.1.weight"].shape
        if self.width < 4:
            raise ValueError(f"time_mlp.1.weight takes {self.width} values of a step, wanted 4 or more")

        def attention(name: str, width: int) -> Attention:
            return Attention(width, tuple(state[f"{name}.mem_kv"].shape), linear=f"{name}.to_out.0.weight" in state)

        first, last = state[FIRST].shape, state["final_conv.weight"].shape
        self.init_conv = nn.Conv2d(first[1], first[0], 7, padding=3)
        self.time_mlp = nn.Sequential(nn.Identity(), nn.Linear(self.width, time), nn.GELU(), nn.Linear(time, time))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i in range(levels):
            width, out = widths[i], widths[i + 1]
            smaller = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, out, 1))
            change = nn.Conv2d(width, out, 3, padding=1) if i == levels - 1 else smaller
            blocks = [ResBlock(width, width, time), ResBlock(width, width, time)]
            self.downs.append(nn.ModuleList([*blocks, attention(f"downs.{i}.2", width), change]))
        self.mid_block1, self.mid_block2 = (ResBlock(widths[-1], widths[-1], time) for _ in range(2))
        self.mid_attn = attention("mid_attn", widths[-1])
        for i in range(levels):
            width, out = widths[-1 - i], widths[-2 - i]
            conv = nn.Conv2d(width, out, 3, padding=1)
            change = conv if i == levels - 1 else nn.Sequential(nn.Upsample(scale_factor=2), conv)
            blocks = [ResBlock(width + out, width, time), ResBlock(width + out, width, time)]
            self.ups.append(nn.ModuleList([*blocks, attention(f"ups.{i}.2", width), change]))
        self.final_res_block = ResBlock(2 * first[0], first[0], time)
        self.final_conv = nn.Conv2d(last[1], last[0], 1)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        half = self.width // 2
        frequencies = torch.exp(torch.arange(half, device=x.device) * -(math.log(10000) / (half - 1)))
        angles = steps[:, None] * frequencies
        time = self.time_mlp(torch.cat([angles.sin(), angles.cos()], dim=-1).to(x.dtype))
        first = self.init_conv(x)
        x, skips = first, list[Tensor]()
        for level in self.downs:
            assert isinstance(level, nn.ModuleList)
            skips.append(level[0](x, time))
            skips.append(level[2](level[1](skips[-1], time)))
            x = level[3](skips[-1])
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for level in self.ups:
            assert isinstance(level, nn.ModuleList)
            x = level[0](torch.cat([x, skips.pop()], dim=1), time)
            x = level[3](level[2](level[1](torch.cat([x, skips.pop()], dim=1), time)))
        return self.final_conv(self.final_res_block(torch.cat([x, first], dim=1), time))


class Adapted(nn.Module):
    """The network, from x_t, steps and no classes to the noise or x_0, as its process says."""

    def __init__(self, network: Unet, process: GaussianDiffusion, *, velocity: bool):
        super().__init__()
        self.network, self.process, self.velocity = network, process, velocity

    def forward(self, x_t: Tensor, steps: Tensor, classes: Tensor | None = None) -> Tensor:
        found = self.network(x_t, steps)
        if not self.velocity:
            return found
        alpha, sigma = self.process.sqrt_alphas_cumprod, self.process.sqrt_one_minus_alphas_cumprod
        return alpha.at(steps, x_t) * x_t - sigma.at(steps, x_t) * found  # x_0 (Salimans and Ho 2022, appendix D)


@dataclass(frozen=True)
class Stored:
    """state: of the network; betas: (T,) float64; predicts: noise, x_0 or v."""

    state: dict[str, Tensor]
    betas: np.ndarray
    predicts: str

    def process(self, config: DiffusionConfig) -> GaussianDiffusion:
        """Of the file, whatever else the flags say."""
        return GaussianDiffusion(replace(config, **self.flags, rescale_timesteps=False), betas=self.betas)

    @property
    def flags(self) -> dict[str, Any]:
        """Of a ``DiffusionConfig``."""
        learn_sigma = len(self.state["final_conv.weight"]) == 2 * self.state[FIRST].shape[1]
        steps = len(self.betas)
        of_x_0 = self.predicts != "noise"  # into which v is turned
        return {"diffusion_steps": steps, "learn_sigma": learn_sigma, "predict_xstart": of_x_0, "predict": "noise"}


def is_checkpoint(path) -> bool:
    """Whether a file has the names of such a network, which is not read for that."""
    if not os.path.isfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            (names,) = (item for item in archive.infolist() if item.filename.endswith("/data.pkl"))
            found = archive.read(names) if names.file_size <= LARGEST else b""
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False
    return all(name in found for name in NAMES)


def read(path) -> Stored:
    """Raises WeightsError."""
    tree = load_state(path)
    prefix = next((prefix for prefix in PREFIXES if prefix + FIRST in tree), None)
    betas = None if prefix is None else tree.get(prefix.removesuffix("model.") + "betas")
    if prefix is None or betas is None or betas.ndim != 1 or not 0 < betas.min() <= betas.max() < 1:
        raise WeightsError(f"{path}: has no U-Net of denoising-diffusion-pytorch with betas; save the Trainer's file")
    state = {name.removeprefix(prefix): value for name, value in tree.items() if name.startswith(prefix)}
    if NORM not in state:
        raise WeightsError(f"{path}: is of an old denoising-diffusion-pytorch; version 2 has {NORM}")
    weight = tree.get(prefix.removesuffix("model.") + "loss_weight")
    values = betas.double().numpy()
    return Stored(state, values, "noise" if weight is None else predicted(values, weight.double().numpy()))


def predicted(betas: np.ndarray, weight: np.ndarray) -> str:
    """By the weight of the loss at a step where signal over noise is about 0.5: 1, that, or that over itself plus 1."""
    kept = np.cumprod(1 - betas)
    ratio = kept / (1 - kept)
    step = int(np.abs(ratio - 0.5).argmin())
    wanted = {"noise": 1.0, "x_0": ratio[step], "v": ratio[step] / (1 + ratio[step])}
    return min(wanted, key=lambda name: abs(wanted[name] - weight[step]))


def load(path, config: DiffusionConfig) -> tuple[nn.Module, GaussianDiffusion, int]:
    """Network, process and channels, on the CPU.  Raises WeightsError."""
    stored = read(path)
    channels, outputs = stored.state[FIRST].shape[1], len(stored.state["final_conv.weight"])
    if channels not in (1, 3) or outputs not in (channels, 2 * channels):
        raise WeightsError(f"{path}: maps {channels} channels to {outputs}, wanted 1 or 3 to as many, or twice as many")
    what = "the U-Net of denoising-diffusion-pytorch"
    try:
        with unfilled():
            network = Unet(stored.state)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise WeightsError(f"{path}: is not {what} ({error})") from None
    load_into(network, stored.state, path=path, what=what)
    process = stored.process(config)
    adapted = Adapted(network, process, velocity=stored.predicts == "v")
    return adapted.eval().requires_grad_(False), process, channels
