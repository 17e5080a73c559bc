"""Small networks for pictures of about 28 to 64 pixels: ``small-``, ``plain-``, ``mixer-`` and ``dense-<width>``.

They are unlike each other in what an attack can exploit: shortcuts and strides, max pooling and position, patches and
wide kernels, features of all depths side by side. Each is a sequence that ends in a linear ``head``: normalised images
(N, C, H, W) -> (N, num_classes).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016), with SiLU: an attack follows its gradient."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.one = _conv(inputs, outputs, stride)
        self.two = _conv(outputs, outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else _conv(inputs, outputs, stride, size=1)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.two(self.activation(self.one(x))) + self.shortcut(x))


def small(width: int, num_classes: int, in_channels: int = 3) -> nn.Sequential:
    """A stem, three stages of widths w, 2w and 4w, average pooling."""
    return _named(
        stem=nn.Sequential(*_conv(in_channels, width), nn.SiLU()),
        stages=nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 4 * width, stride=2),
        ),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(4 * width, num_classes),
    )


def plain(width: int, num_classes: int, in_channels: int = 3) -> nn.Sequential:
    """Convolutions, ReLU and max pooling (after VGG, Simonyan and Zisserman 2015); the head sees a 3 x 3 grid."""
    stages = nn.Sequential()
    for inputs, outputs in ((in_channels, width), (width, 2 * width), (2 * width, 4 * width)):
        stages.extend([*_conv(inputs, outputs), nn.ReLU(), nn.MaxPool2d(2)])
    pool, head = nn.AdaptiveAvgPool2d(3), nn.Linear(9 * 4 * width, num_classes)
    return _named(stages=stages, pool=pool, flat=nn.Flatten(), head=head)


class MixerBlock(nn.Module):
    """A 7 x 7 convolution of each channel beside a shortcut, then one across channels (Trockman and Kolter 2022)."""

    def __init__(self, width: int):
        super().__init__()
        depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.space = nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(width))
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(x + self.space(x))


def mixer(width: int, num_classes: int, in_channels: int = 3) -> nn.Sequential:
    """Patches of 4 x 4 pixels, four mixing blocks of one width, average pooling."""
    return _named(
        patches=nn.Sequential(nn.Conv2d(in_channels, width, 4, stride=4), nn.GELU(), nn.BatchNorm2d(width)),
        blocks=nn.Sequential(*(MixerBlock(width) for _ in range(4))),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(width, num_classes),
    )


class DenseLayer(nn.Module):
    """``growth`` new features beside all earlier ones (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int):
        super().__init__()
        convolution = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        self.new = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], 1)


def dense(growth: int, num_classes: int, in_channels: int = 3) -> nn.Sequential:
    """A strided stem, three stages of four layers, halved by average pooling in between."""
    width, stages = 2 * growth, nn.Sequential()
    stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
    for stage in range(3):
        if stage:
            stages.extend([nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)])
            stages.append(nn.AvgPool2d(2))
            width //= 2
        stages.extend([DenseLayer(width + layer * growth, growth) for layer in range(4)])
        width += 4 * growth
    last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return _named(stem=stem, stages=stages, pool=last, flat=nn.Flatten(), head=nn.Linear(width, num_classes))


FAMILIES = {"small": small, "plain": plain, "mixer": mixer, "dense": dense}
