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
        super().__init__(32, channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample_nearest(x))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def upsample_nearest(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def downsample_average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


class ResBlock(nn.Module):
    """Two convolutions with the time embedding between them; ``resample`` acts after the first normalisation."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        out_channels: int,
        *,
        dropout: float = 0.0,
        use_scale_shift_norm: bool = False,
        use_checkpoint: bool = False,
        resample=None,
    ):
        super().__init__()
        self.use_scale_shift_norm = use_scale_shift_norm
        self.use_checkpoint = use_checkpoint
        self.resample = resample or nn.Identity()
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels * (1 + use_scale_shift_norm)))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
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
    return torch.promote_types(x.dtype, torch.float32)


class EmbedSequential(nn.Sequential):
    """Layers in a row; residual blocks also get the time embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNetModel(nn.Module):
    """Predicts (N, out_channels, H, W) from x_t (N, 3, H, W), steps (N,) and, if conditional, classes.

    attention_downsampling: factors of downsampling at which attention stands, beside the middle block.
    channel_mult: width of each level in units of model_channels.
    num_classes: classes are (N,) int64, or (N, num_classes) float for attribute conditions.
    """

    def __init__(
        self,
        *,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_downsampling: tuple[int, ...],
        channel_mult: tuple[float, ...],
        in_channels: int = 3,
        num_classes: int | None = None,
        dropout: float = 0.0,
        use_checkpoint: bool = False,
        num_heads: int = 1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
    ):
        super().__init__()
        self.model_channels = model_channels
        self.num_classes = num_classes
        emb_channels = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb_channels)

        def res_block(channels: int, width: int, resample=None) -> ResBlock:
            return ResBlock(
                channels,
                emb_channels,
                width,
                dropout=dropout,
                use_scale_shift_norm=use_scale_shift_norm,
                use_checkpoint=use_checkpoint,
                resample=resample,
            )

        def attention(channels: int, heads: int) -> AttentionBlock:
            heads = heads if num_head_channels == -1 else channels // num_head_channels
            return AttentionBlock(channels, heads, new_order=use_new_attention_order, use_checkpoint=use_checkpoint)

        widths = [int(mult * model_channels) for mult in channel_mult]
        last = len(widths) - 1
        upsample_heads = num_heads if num_heads_upsample == -1 else num_heads_upsample

        width = widths[0]
        self.input_blocks = nn.ModuleList([EmbedSequential(nn.Conv2d(in_channels, width, 3, padding=1))])
        skips = [width]
        for level, level_width in enumerate(widths):
            for _ in range(num_res_blocks):
                layers = [res_block(width, level_width)]
                width = level_width
                if 2**level in attention_downsampling:
                    layers.append(attention(width, num_heads))
                self.input_blocks.append(EmbedSequential(*layers))
                skips.append(width)
            if level != last:
                down = res_block(width, width, downsample_average) if resblock_updown else Downsample(width)
                self.input_blocks.append(EmbedSequential(down))
                skips.append(width)

        self.middle_block = EmbedSequential(
            res_block(width, width), attention(width, num_heads), res_block(width, width)
        )

        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for block in range(num_res_blocks + 1):
                layers = [res_block(width + skips.pop(), widths[level])]
                width = widths[level]
                if 2**level in attention_downsampling:
                    layers.append(attention(width, upsample_heads))
                if level and block == num_res_blocks:
                    up = res_block(width, width, upsample_nearest) if resblock_updown else Upsample(width)
                    layers.append(up)
                self.output_blocks.append(EmbedSequential(*layers))

        self.out = nn.Sequential(GroupNorm32(width), nn.SiLU(), zero_init(nn.Conv2d(width, out_channels, 3, padding=1)))

    def torso_to(self, dtype: torch.dtype) -> "UNetModel":
        """Store the torso's convolutions in ``dtype``, e.g. torch.float16; the rest stays as it is."""
        for module in chain(self.input_blocks.modules(), self.middle_block.modules(), self.output_blocks.modules()):
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.to(dtype)
        return self

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        if (y is not None) != (self.num_classes is not None):
            raise ValueError("classes must be given if and only if the model is class-conditional")
        parameter = self.time_embed[0].weight
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(parameter.dtype))
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
