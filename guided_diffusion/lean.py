"""Layers that keep as little as their gradient needs, in the place of torch's, which keep every result on the way.

A gradient through a frozen U-Net needs the input of each normalisation and nothing of a convolution: less than half of
what torch's layers keep.
"""

import math
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
        n, channels, *size = x.shape
        wide = as_normalised(x.to(weight.dtype))
        h, mean, rstd = torch.native_group_norm(wide, weight, bias, n, channels, math.prod(size), groups, eps)
        ctx.save_for_backward(x, weight, bias, scale, shift, mean, rstd)
        return F.silu(torch.addcmul(each(shift), h, 1 + each(scale)), inplace=True).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
        wide, shape = x.to(weight.dtype), (*mean.shape, -1)  # (N, groups, channels of a group)
        mean, rstd = mean[:, :, None], rstd[:, :, None]
        gain = (weight * (1 + scale)).view(shape)
        slope = gain * rstd
        offset = torch.addcmul(shift, bias, 1 + scale).view(shape) - slope * mean
        inner = torch.addcmul(each(offset), wide, each(slope))  # SiLU's argument, then the gradient at it
        inner = torch.ops.aten.silu_backward(gradient.to(wide.dtype), inner)
        total = inner.sum((2, 3)).view(shape)
        along = ((inner * wide).sum((2, 3)).view(shape) - mean * total) * rstd  # with the normalised input
        of_channels: list[Tensor | None] = [None] * 4
        if any(ctx.needs_input_grad[1:]):
            straight, across = total.flatten(1), along.flatten(1)
            at_weight, at_bias = ((1 + scale) * across).sum(0), ((1 + scale) * straight).sum(0)
            of_channels = [at_weight, at_bias, weight * across + bias * straight, straight]
        # What the mean and the deviation of a group owe to x makes the rest a line in x.
        values = x[0].numel() // mean.shape[1]
        bend = -rstd.square() * (gain * along).sum(2, keepdim=True) / values
        level = -rstd * (gain * total).sum(2, keepdim=True) / values - bend * mean
        line = torch.addcmul(each(level.expand_as(gain)), wide, each(bend.expand_as(gain)))
        return line.addcmul_(inner, each(slope)).to(x.dtype), *of_channels, None, None


def as_normalised(x: Tensor) -> Tensor:
    """As torch's normalisation takes it: channels last on a CPU alone."""
    last = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    return x if last else x.contiguous()


def each(of_channel: Tensor) -> Tensor:
    """(N, C) or (N, groups, C / groups) -> (N, C, 1, 1)."""
    return of_channel.flatten(1)[:, :, None, None]


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
