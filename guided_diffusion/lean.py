"""Layers that keep as little as their gradient needs, in the place of torch's, which keep every result on the way.

A gradient through a frozen U-Net needs the input of each normalisation and nothing of a convolution: less than half of
what torch's layers keep.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class NormSiLU(torch.autograd.Function):
    """SiLU of a group normalisation, scaled by ``1 + scale`` and shifted, in at least float32; it keeps its input.

    (N, C, H, W); weight and bias (C,); scale and shift (N, C) -> (N, C, H, W) of the input's type.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
    ) -> Tensor:
        n, channels, height, width = x.shape
        h, mean, rstd = torch.native_group_norm(
            x.to(weight.dtype), weight, bias, n, channels, height * width, groups, eps
        )
        ctx.save_for_backward(x, weight, bias, scale, shift, mean, rstd)
        return F.silu(torch.addcmul(each(shift), h, 1 + each(scale)), inplace=True).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
        size = x.shape[1] // mean.shape[1]
        values = size * x.shape[2] * x.shape[3]  # of a group
        wide, gain = x.to(weight.dtype), weight * (1 + scale)
        mean, rstd = (of_group.repeat_interleave(size, 1) for of_group in (mean, rstd))
        # The argument of SiLU is slope * x + offset, and its gradient is known by two sums over positions.
        slope, offset = gain * rstd, bias * (1 + scale) + shift - gain * rstd * mean
        inner = torch.ops.aten.silu_backward(gradient.to(wide.dtype), torch.addcmul(each(offset), wide, each(slope)))
        total = inner.sum((2, 3))
        along = ((inner * wide).sum((2, 3)) - mean * total) * rstd  # with the normalised input

        def mean_of_group(of_channel: Tensor) -> Tensor:
            sums = of_channel.unflatten(1, (-1, size)).sum(2, keepdim=True) / values
            return sums.expand(-1, -1, size).flatten(1)

        bend = -rstd.square() * mean_of_group(gain * along)
        level = -rstd * mean_of_group(gain * total) - bend * mean
        at_x = torch.addcmul(each(level), wide, each(bend)).addcmul_(inner, each(slope)).to(x.dtype)
        at_weight, at_bias = ((1 + scale) * along).sum(0), ((1 + scale) * total).sum(0)
        return at_x, at_weight, at_bias, weight * along + bias * total, total, None, None


def each(of_channel: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1)."""
    return of_channel[:, :, None, None]


class FrozenConv2d(torch.autograd.Function):
    """A convolution whose weights get no gradient; it keeps nothing of its input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        at_x = conv2d_input(ctx.shape, weight, gradient, ctx.stride, ctx.padding)
        return at_x, None, None, None, None


class Conv2d(nn.Conv2d):
    """A convolution that keeps its input only where its weights get a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        trained = self.weight.requires_grad or torch.is_autocast_enabled(x.device.type)
        if trained or not torch.is_grad_enabled():
            return super().forward(x)
        return FrozenConv2d.apply(x, self.weight, self.bias, self.stride, self.padding)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of one position, as a product, which likewise keeps ``x`` only where ``weight`` gets a gradient.

    (N, in_channels, ...), weight (out_channels, in_channels, 1, ...) -> (N, out_channels, ...), as channels last.
    """
    return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


class Pointwise1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class Pointwise2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)
