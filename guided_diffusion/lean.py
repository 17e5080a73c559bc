"""Layers that keep as little as their gradient needs, in the place of torch's, which keep every result on the way.

A gradient through a frozen U-Net needs the input of each normalisation and nothing of a convolution: less than half of
what torch's layers keep.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class NormSiLU(torch.autograd.Function):
    """SiLU of a group normalisation times ``gain`` plus ``offset``, in their type; it keeps its input.

    (N, C, H, W); gain and offset (N, C) -> (N, C, H, W) of the input's type.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
        ctx.groups, ctx.eps = groups, eps
        h, mean, rstd = normalised(x, gain, offset, groups, eps)
        ctx.save_for_backward(x, gain, offset, mean, rstd)
        return F.silu(h, inplace=True).view(x.shape).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, rstd = ctx.saved_tensors
        h, _, _ = normalised(x, gain, offset, ctx.groups, ctx.eps)
        inner = torch.ops.aten.silu_backward(gradient.to(h.dtype).reshape(h.shape), h)
        sizes, wanted = (*h.shape, mean.shape[1]), [*ctx.needs_input_grad[:3]]
        found = torch.ops.aten.native_group_norm_backward(
            inner, as_one(x, h.dtype), mean, rstd, gain.flatten(), *sizes, wanted
        )
        at_x, at_gain, at_offset = (
            part.view_as(own) if asked else None
            for part, own, asked in zip(found, (x, gain, offset), wanted, strict=True)
        )
        return at_x if at_x is None else at_x.to(x.dtype), at_gain, at_offset, None, None


def normalised(x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """SiLU's argument, mean and rstd, by torch's kernel, to which the channels of all pictures are those of one."""
    one, gain, offset = as_one(x, gain.dtype), gain.flatten(), offset.flatten()
    return torch.native_group_norm(one, gain, offset, 1, one.shape[1], one.shape[2], len(x) * groups, eps)


def as_one(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (1, N * C, H * W)."""
    return x.to(dtype).reshape(1, x.shape[0] * x.shape[1], -1)


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
        empty, mask = gradient.new_empty(ctx.shape), [True, False, False]  # of the input, the shape alone is read
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


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of one position, as a product, which likewise keeps ``x`` only where ``weight`` gets a gradient.

    (N, in_channels, ...), weight (out_channels, in_channels, 1, ...) -> (N, out_channels, ...).
    """
    assert bias is not None, "every layer of the network has one"
    of_each = weight.flatten(1).expand(len(x), -1, -1)
    return torch.baddbmm(bias[:, None], of_each, x.flatten(2)).unflatten(2, x.shape[2:])


class Pointwise1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class Pointwise2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)
