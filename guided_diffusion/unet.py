"""The U-Net of Dhariwal and Nichol 2021, with guided-diffusion's parameter names.

Feature maps are (N, C, H, W). The torso (everything between the time embedding and the output layer) may run in half
precision; normalisation and the output are always float32 or wider.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ace_counterfactuals.core.base.runtime import upload
from ace_counterfactuals.guided_diffusion.config import NORM_GROUPS, UNetConfig
from ace_counterfactuals.guided_diffusion.lean import (
    EPS,
    Conv2d,
    Pointwise1d,
    Pointwise2d,
    group_norm,
    layout,
    pictured,
    tokens,
)


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """(N,) steps, possibly fractional -> (N, dim) float32: cosines, then sines, of t * 10000^(-i / half)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps[:, None].float() * upload(frequencies, timesteps.device)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in at least float32, whatever the type of its input."""

    silu = False

    def __init__(self, channels: int, groups: int = NORM_GROUPS):
        super().__init__(groups, channels, eps=EPS)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Its result times ``1 + scale`` plus ``shift``: both (N, channels), or 0."""
        gain, offset = self.weight.expand(len(x), -1), self.bias.expand(len(x), -1)
        if scale is not None and shift is not None:
            scale, shift = scale.to(gain.dtype), shift.to(gain.dtype)
            gain, offset = gain * (1 + scale), torch.addcmul(shift, offset, 1 + scale)
        return group_norm(x, gain, offset, self.num_groups, silu=self.silu)


class NormSiLU32(GroupNorm32):
    """SiLU of that."""

    silu = True


class ResBlock(nn.Module):
    """Two convolutions with the time embedding between them; ``resample`` acts after the first normalisation.

    (N, channels, H, W) -> (N, out_channels, H, W), H and W as ``resample`` leaves them.
    """

    def __init__(self, channels: int, out_channels: int, config: UNetConfig, resample: nn.Module | None = None):
        super().__init__()
        self.use_scale_shift_norm = config.use_scale_shift_norm
        self.resample = resample or nn.Identity()
        # An nn.Identity holds the place that SiLU has in the names of a checkpoint.
        self.in_layers = nn.Sequential(
            NormSiLU32(channels), nn.Identity(), Conv2d(channels, out_channels, 3, padding=1)
        )
        emb_outputs = out_channels * (1 + config.use_scale_shift_norm)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.emb_channels, emb_outputs))
        self.out_layers = nn.Sequential(
            NormSiLU32(out_channels),
            nn.Identity(),
            nn.Dropout(config.dropout),
            zero_init(Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else Pointwise2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, _, conv = self.in_layers
        h = conv(self.resample(norm(x)))
        emb = self.emb_layers(emb)
        if self.use_scale_shift_norm:
            norm, *rest = self.out_layers
            h = norm(h, *emb.chunk(2, dim=1))
            for layer in rest:
                h = layer(h)
        else:
            h = self.out_layers(h + emb.to(h.dtype)[:, :, None, None])
        return h + self.skip_connection(self.resample(x))


class AttentionBlock(nn.Module):
    """Self-attention over positions; up: on the way up, which may have heads of its own."""

    def __init__(self, channels: int, config: UNetConfig, *, up: bool = False):
        super().__init__()
        self.num_heads = config.heads(channels, up=up)
        self.new_order = config.use_new_attention_order
        self.norm = GroupNorm32(channels)
        self.qkv = Pointwise1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(Pointwise1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        order, axis = ((3, self.num_heads), 2) if self.new_order else ((self.num_heads, 3), 3)
        parts = self.qkv(tokens(self.norm(x))).unflatten(2, (*order, -1)).unbind(axis)
        # The fused kernel scales inside, so that half precision keeps its range, and needs memory linear in the
        # positions.
        q, k, v = (part.transpose(1, 2) for part in parts)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + pictured(self.proj_out(h), x)


class Block(nn.Sequential):
    """Layers in a row; residual blocks also get the time embedding."""

    def forward(self, x: Tensor, emb: Tensor, recompute: bool) -> Tensor:  # type: ignore[override]
        """recompute: each layer in the backward pass, which takes the memory of its input alone."""
        for layer in self:
            inputs = (x, emb) if isinstance(layer, ResBlock) else (x,)
            x = checkpoint(layer, *inputs, use_reentrant=False) if recompute else layer(*inputs)
        return x


def make_input_blocks(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """The way down, and the widths of the features that it leaves for the way up."""
    widths = config.widths
    width = widths[0]
    blocks, skips = [Block(Conv2d(config.in_channels, width, 3, padding=1))], [width]
    for level, level_width in enumerate(widths):
        for _ in range(config.num_res_blocks):
            block = Block(ResBlock(width, level_width, config))
            width = level_width
            if 2**level in config.attention:
                block.append(AttentionBlock(width, config))
            blocks.append(block)
            skips.append(width)
        if level != len(widths) - 1:
            blocks.append(Block(make_downsampler(width, config)))
            skips.append(width)
    return nn.ModuleList(blocks), skips


def make_output_blocks(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """The way up, whose blocks take the features so far and the latest skip."""
    widths = config.widths
    width, blocks = widths[-1], nn.ModuleList()
    for level in reversed(range(len(widths))):
        for i in range(config.num_res_blocks + 1):
            block = Block(ResBlock(width + skips.pop(), widths[level], config))
            width = widths[level]
            if 2**level in config.attention:
                block.append(AttentionBlock(width, config, up=True))
            if level and i == config.num_res_blocks:
                block.append(make_upsampler(width, config))
            blocks.append(block)
    return blocks


def make_downsampler(width: int, config: UNetConfig) -> nn.Module:
    """(N, width, H, W) -> (N, width, H/2, W/2)."""
    if config.resblock_updown:
        return ResBlock(width, width, config, nn.AvgPool2d(2))
    return nn.Sequential(OrderedDict(op=Conv2d(width, width, 3, stride=2, padding=1)))


def make_upsampler(width: int, config: UNetConfig) -> nn.Module:
    """(N, width, H, W) -> (N, width, 2H, 2W)."""
    nearest = nn.Upsample(scale_factor=2)
    if config.resblock_updown:
        return ResBlock(width, width, config, nearest)
    return nn.Sequential(OrderedDict(nearest=nearest, conv=Conv2d(width, width, 3, padding=1)))


@dataclass
class Deep:
    """What the levels but the first leave for the last blocks on the way up, kept from one step for others (DeepCache,
    Ma et al. 2024)."""

    features: Tensor | None = None


class UNetModel(nn.Module):
    """Predicts (N, C, H, W), or (N, 2C, H, W) with ``learn_sigma``, from x_t (N, C, H, W), steps (N,) and classes.

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
        self.middle_block = Block(
            ResBlock(width, width, config), AttentionBlock(width, config), ResBlock(width, width, config)
        )
        self.output_blocks = make_output_blocks(config, skips)
        width, outputs = config.widths[0], config.in_channels * (1 + config.learn_sigma)
        self.out = nn.Sequential(NormSiLU32(width), nn.Identity(), zero_init(Conv2d(width, outputs, 3, padding=1)))

    def torso_to(self, dtype: torch.dtype) -> "UNetModel":
        """Store the torso's convolutions in ``dtype``, e.g. torch.float16; the rest stays as it is."""
        for part in (self.input_blocks, self.middle_block, self.output_blocks):
            for module in part.modules():
                if isinstance(module, nn.Conv1d | nn.Conv2d):
                    module.to(dtype)
        return self

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None, deep: Deep | None = None) -> Tensor:
        """deep: features of another step that this one takes, or, where it has none, leaves there.

        Raises ValueError where classes are given to a network that takes none, or the reverse.
        """
        if (y is not None) != self.config.class_cond:
            raise ValueError("classes must be given if and only if the model is class-conditional")
        dtype, torso = (next(part.parameters()).dtype for part in (self.time_embed, self.input_blocks))
        emb = self.time_embed(timestep_embedding(timesteps, self.config.num_channels).to(dtype))
        if y is not None:
            emb = emb + (y.to(emb.dtype) @ self.label_emb.weight if y.is_floating_point() else self.label_emb(y))
        recompute = self.config.use_checkpoint and torch.is_grad_enabled()
        h, skips = x.to(torso, memory_format=layout(self.out.get_parameter("2.weight"))), []
        first = 1 + self.config.num_res_blocks  # blocks of the first level, on the way down and up
        kept = deep.features if deep else None
        for block in self.input_blocks if kept is None else self.input_blocks[:first]:
            h = block(h, emb, recompute)
            skips.append(h)
        if kept is None:
            h = self.middle_block(h, emb, recompute)
            for block in self.output_blocks[:-first]:
                h = block(torch.cat([h, skips.pop()], dim=1), emb, recompute)
            if deep:
                deep.features = h
        else:
            h = kept
        for block in self.output_blocks[-first:]:
            h = block(torch.cat([h, skips.pop()], dim=1), emb, recompute)
        return self.out(h.to(dtype)).to(torch.promote_types(x.dtype, torch.float32)).contiguous()


def zero_init(module: nn.Module) -> nn.Module:
    """Residual branches start as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
