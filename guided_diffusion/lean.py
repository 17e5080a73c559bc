"""Layers that keep as little as their gradient needs, in the place of torch's, which keep every result on the way.

A gradient through a frozen U-Net needs the input of each normalisation and nothing of a convolution: less than half of
what torch's layers keep.
"""

import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Network = TypeVar("Network", bound=nn.Module)
EPS = 1e-5  # of a variance


def group_norm(x: Tensor, gain: Tensor, offset: Tensor, groups: int, *, silu: bool) -> Tensor:
    """A group normalisation times ``gain`` plus ``offset``, in their type, and SiLU of that; it keeps its input alone.

    (N, C, H, W); gain and offset (N, C) -> (N, C, H, W) of the input's type and its order in memory.
    """
    last = layout(x) == torch.channels_last
    return (NormLast if last else Norm).apply(x, gain, offset, groups, silu)


class Norm(torch.autograd.Function):
    """That by torch's kernel, to which the channels of all pictures are those of one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, silu: bool) -> Tensor:
        ctx.groups, ctx.silu = groups, silu
        h, mean, rstd = normalised(x, gain, offset, groups)
        ctx.save_for_backward(x, gain, offset, mean, rstd)
        return (F.silu(h, inplace=True) if silu else h).view(x.shape).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, rstd = ctx.saved_tensors
        wide, inner = as_one(x, gain.dtype), as_one(gradient, gain.dtype)
        if ctx.silu:
            inner = torch.ops.aten.silu_backward(inner, normalised(x, gain, offset, ctx.groups)[0])
        sizes, wanted = (*wide.shape, mean.shape[1]), [*ctx.needs_input_grad[:3]]
        found = torch.ops.aten.native_group_norm_backward(inner, wide, mean, rstd, gain.flatten(), *sizes, wanted)
        at_x, at_gain, at_offset = (
            part.view_as(own) if asked else None
            for part, own, asked in zip(found, (x, gain, offset), wanted, strict=True)
        )
        return at_x if at_x is None else at_x.to(x.dtype), at_gain, at_offset, None, None


def normalised(x: Tensor, gain: Tensor, offset: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """SiLU's argument, mean and rstd."""
    one, gain, offset = as_one(x, gain.dtype), gain.flatten(), offset.flatten()
    return torch.native_group_norm(one, gain, offset, 1, one.shape[1], one.shape[2], len(x) * groups, EPS)


def as_one(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (1, N * C, H * W), in this order in memory, which the kernel of torch 2.6 takes for granted."""
    return x.to(dtype).reshape(1, x.shape[0] * x.shape[1], -1).contiguous()


class NormLast(torch.autograd.Function):
    """The same with channels last in memory, where torch's kernel is slow backward, and less exact forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, silu: bool) -> Tensor:
        ctx.groups, ctx.silu = groups, silu
        wide = x.to(gain.dtype)
        mean = of_groups(wide.mean((2, 3)), groups)
        h = wide - over(mean)
        rstd = (of_groups((h * h).mean((2, 3)), groups) + EPS).rsqrt()
        ctx.save_for_backward(x, gain, offset, mean, rstd)
        torch.addcmul(over(offset), h, over(rstd * gain), out=h)
        return (F.silu(h, inplace=True) if silu else h).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, rstd = ctx.saved_tensors
        centred, d, factor = x.to(gain.dtype) - over(mean), gradient.to(gain.dtype), rstd * gain
        if ctx.silu:
            d = torch.ops.aten.silu_backward(d, torch.addcmul(over(offset), centred, over(factor)))
        at_offset = d.sum((2, 3))
        at_gain = rstd * (d * centred).sum((2, 3))
        # What moves the group's mean and its spread does not reach the result.
        size = math.prod(x.shape[2:])
        across = rstd * of_groups(gain * at_offset, ctx.groups) / size
        along = rstd**2 * of_groups(gain * at_gain, ctx.groups) / size
        at_x = torch.addcmul(over(-across), centred, over(-along), out=centred).addcmul_(d, over(factor))
        return at_x.to(x.dtype), at_gain, at_offset, None, None


def of_groups(values: Tensor, groups: int) -> Tensor:
    """(N, C) -> (N, C): the mean over the channels of the own group."""
    parts = values.unflatten(1, (groups, -1))
    return parts.mean(2, keepdim=True).expand_as(parts).flatten(1)


def over(values: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1)."""
    return values[:, :, None, None]


def layout(x: Tensor) -> torch.memory_format:
    """The order in memory of features (N, C, H, W) or of weights, with channels last or as the dimensions are."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    return torch.channels_last if last else torch.contiguous_format


def laid_out(network: Network) -> Network:
    """Its weights in the order in memory that its device computes fast in, which features follow: channels last on a
    CPU, whose convolutions and norms then need no copies.  Those of a single pixel stay as they are, like their
    gradients: DDP warns where the two differ."""
    for weight in network.parameters():
        if weight.ndim == 4 and weight.shape[2:] != (1, 1):
            order = torch.channels_last if weight.device.type == "cpu" else torch.contiguous_format
            weight.data = weight.data.contiguous(memory_format=order)
    return network


class FrozenConv2d(torch.autograd.Function):
    """A convolution whose weights get no gradient; it keeps nothing of its input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.layout, ctx.stride, ctx.padding = x.shape, layout(x), stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        like = {"dtype": gradient.dtype, "device": gradient.device, "memory_format": ctx.layout}
        empty, mask = torch.empty(ctx.shape, **like), [True, False, False]  # of the input, its content is not read
        places = [*ctx.stride], [*ctx.padding], [1, 1], False, [0, 0], 1
        at_x, _, _ = torch.ops.aten.convolution_backward(gradient, empty, weight, None, *places, mask)
        return at_x, None, None, None, None


class Conv2d(nn.Conv2d):
    """A convolution that keeps its input only where its weights get a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        trained = self.weight.requires_grad or torch.is_autocast_enabled(x.device.type)
        if trained or not torch.is_grad_enabled():
            return super().forward(x)
        return FrozenConv2d.apply(x, self.weight, self.bias, self.stride, self.padding)


class Pointwise1d(nn.Conv1d):
    """A convolution of one position, as a product, which likewise keeps its input only where its weights get a
    gradient.  (N, length, in_channels) -> (N, length, out_channels): channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class Pointwise2d(nn.Conv2d):
    """The same, (N, in_channels, H, W) -> (N, out_channels, H, W), in the order in memory of its input."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.flatten(1)
        if layout(x) == torch.channels_last:
            return pictured(F.linear(tokens(x), weight, self.bias), x)
        assert self.bias is not None, "every layer of the network has one"
        return torch.baddbmm(self.bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])


def tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def pictured(h: Tensor, x: Tensor) -> Tensor:
    """(N, H * W, C) -> (N, C, H, W), of the height and width of ``x``."""
    return h.transpose(1, 2).unflatten(2, x.shape[2:])
