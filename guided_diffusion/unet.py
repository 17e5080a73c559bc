"""The U-Net of Dhariwal and Nichol 2021, with guided-diffusion's parameter names.

Feature maps are (N, C, H, W). The torso (everything between the time embedding and the output layer) may run in half
precision; normalisation and the output are always float32 or wider.
"""

import math
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ace_counterfactuals.guided_diffusion.config import NORM_GROUPS, UNetConfig


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000) -> Tensor:
    """(N,) steps, possibly fractional -> (N, dim) float32: cosines, then sines, of t * max_period^(-i / half)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps[:, None].float() * frequencies.to(timesteps.device)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in at least float32, whatever the type of its input."""

    def __init__(self, channels: int):
        super().__init__(NORM_GROUPS, channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Upsample(nn.Module):
    """(N, channels, H, W) -> (N, channels, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample_nearest(x))


class Downsample(nn.Module):
    """(N, channels, H, W) -> (N, channels, H/2, W/2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def upsample_nearest(x: Tensor) -> Tensor:
    """Each position becomes 2 x 2."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def downsample_average(x: Tensor) -> Tensor:
    """2 x 2 positions become their mean."""
    return F.avg_pool2d(x, 2)


class ResBlock(nn.Module):
    """Two convolutions with the time embedding between them; ``resample`` acts after the first normalisation.

    (N, channels, H, W) -> (N, out_channels, H, W), H and W as ``resample`` leaves them.
    """

    def __init__(self, channels: int, out_channels: int, config: UNetConfig, resample=None):
        super().__init__()
        self.use_scale_shift_norm = config.use_scale_shift_norm
        self.use_checkpoint = config.use_checkpoint
        self.resample = resample or nn.Identity()
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        emb_outputs = out_channels * (1 + config.use_scale_shift_norm)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.emb_channels, emb_outputs))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return maybe_checkpoint(self._forward, self.use_checkpoint, x, emb)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, conv = self.in_layers
        h = conv(self.resample(activation(norm(x))))
        emb = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.use_scale_shift_norm:
            scale, shift = emb.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(self.resample(x)) + h


class AttentionBlock(nn.Module):
    """Self-attention over positions.

    new_order: the channels of ``qkv`` are ordered q, k, v and then by head; the legacy order is heads first.
    """

    def __init__(self, channels: int, num_heads: int, *, new_order: bool = False, use_checkpoint: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self.new_order = new_order
        self.use_checkpoint = use_checkpoint
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return maybe_checkpoint(self._forward, self.use_checkpoint, x)

    def _forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        flat = x.reshape(n, channels, -1)
        qkv = self.qkv(self.norm(flat))
        head_channels = channels // self.num_heads
        if self.new_order:
            q, k, v = qkv.view(n, 3, self.num_heads, head_channels, -1).unbind(1)
        else:
            q, k, v = qkv.view(n, self.num_heads, 3, head_channels, -1).unbind(2)
        h = attend(q, k, v)
        return (flat + self.proj_out(h.reshape(n, channels, -1))).view(n, channels, height, width)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(head width)) v over (N, heads, channels, positions).

    The fused kernel scales inside, so that half precision keeps its range, and needs memory linear in the positions.
    It wants contiguous heads: on transposed views it is slower than plain products.
    """
    return F.scaled_dot_product_attention(*(a.transpose(2, 3).contiguous() for a in (q, k, v))).transpose(2, 3)


def max_dtype(x: Tensor) -> torch.dtype:
    """float32, or the type of ``x`` where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


class EmbedSequential(nn.Sequential):
    """Layers in a row; residual blocks also get the time embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def attention(channels: int, config: UNetConfig, *, up: bool = False) -> AttentionBlock:
    """up: on the way up, which may have heads of its own."""
    heads = config.heads(channels, up=up)
    return AttentionBlock(
        channels, heads, new_order=config.use_new_attention_order, use_checkpoint=config.use_checkpoint
    )


def make_input_blocks(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """The way down, and the widths of the features that it leaves for the way up."""
    widths = config.widths
    width = widths[0]
    blocks, skips = [EmbedSequential(nn.Conv2d(3, width, 3, padding=1))], [width]
    for level, level_width in enumerate(widths):
        for _ in range(config.num_res_blocks):
            layers = [ResBlock(width, level_width, config)]
            width = level_width
            if 2**level in config.attention:
                layers.append(attention(width, config))
            blocks.append(EmbedSequential(*layers))
            skips.append(width)
        if level != len(widths) - 1:
            down = ResBlock(width, width, config, downsample_average) if config.resblock_updown else Downsample(width)
            blocks.append(EmbedSequential(down))
            skips.append(width)
    return nn.ModuleList(blocks), skips


def make_output_blocks(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """The way up, whose blocks take the features so far and the latest skip."""
    widths = config.widths
    width, blocks = widths[-1], []
    for level in reversed(range(len(widths))):
        for block in range(config.num_res_blocks + 1):
            layers = [ResBlock(width + skips.pop(), widths[level], config)]
            width = widths[level]
            if 2**level in config.attention:
                layers.append(attention(width, config, up=True))
            if level and block == config.num_res_blocks:
                up = ResBlock(width, width, config, upsample_nearest) if config.resblock_updown else Upsample(width)
                layers.append(up)
            blocks.append(EmbedSequential(*layers))
    return nn.ModuleList(blocks)


class UNetModel(nn.Module):
    """Predicts (N, 3, H, W), or (N, 6, H, W) with ``learn_sigma``, from x_t (N, 3, H, W), steps (N,) and classes.

    Classes are for a class-conditional model alone: (N,) int64, or (N, num_classes) float for attributes.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        channels, emb_channels, width = config.num_channels, config.emb_channels, config.widths[-1]
        self.time_embed = nn.Sequential(
            nn.Linear(channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if config.class_cond:
            self.label_emb = nn.Embedding(config.num_classes, emb_channels)
        self.input_blocks, skips = make_input_blocks(config)
        self.middle_block = EmbedSequential(
            ResBlock(width, width, config), attention(width, config), ResBlock(width, width, config)
        )
        self.output_blocks = make_output_blocks(config, skips)
        width, outputs = config.widths[0], 6 if config.learn_sigma else 3
        self.out = nn.Sequential(GroupNorm32(width), nn.SiLU(), zero_init(nn.Conv2d(width, outputs, 3, padding=1)))

    def torso_to(self, dtype: torch.dtype) -> "UNetModel":
        """Store the torso's convolutions in ``dtype``, e.g. torch.float16; the rest stays as it is."""
        for module in chain(self.input_blocks.modules(), self.middle_block.modules(), self.output_blocks.modules()):
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.to(dtype)
        return self

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        """Raises ValueError where classes are given to a network that takes none, or the reverse."""
        if (y is not None) != self.config.class_cond:
            raise ValueError("classes must be given if and only if the model is class-conditional")
        parameter = self.time_embed[0].weight
        emb = self.time_embed(timestep_embedding(timesteps, self.config.num_channels).to(parameter.dtype))
        if y is not None:
            emb = emb + (y.to(emb.dtype) @ self.label_emb.weight if y.is_floating_point() else self.label_emb(y))
        h = x.to(self.input_blocks[0][0].weight.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h.to(parameter.dtype)).to(max_dtype(x))


def zero_init(module: nn.Module) -> nn.Module:
    """Residual branches start as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def maybe_checkpoint(function, enabled: bool, *inputs: Tensor) -> Tensor:
    """Trade a second forward pass for the memory of the activations, when a gradient is wanted at all."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)
