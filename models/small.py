"""Small networks for pictures of about 28 to 64 pixels: ``small-<width>``, ``plain-<width>`` and ``mixer-<width>``.

They are unlike each other in what an attack can exploit: shortcuts and strides, max pooling and position, patches and
wide kernels.
"""

from torch import Tensor, nn


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


class Network(nn.Module):
    """(N, 3, H, W) -> (N, num_classes): a linear ``head`` on the ``features`` (N, D) that a kind of network has."""

    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SmallNetwork(Network):
    """A stem, three stages of widths w, 2w and 4w, average pooling, a linear head."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, width), nn.SiLU())
        self.stages = nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 4 * width, stride=2),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x)).mean(dim=(2, 3))


class PlainNetwork(Network):
    """Convolutions, ReLU and max pooling (after VGG, Simonyan and Zisserman 2015); the head sees a 3 x 3 grid."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        stages = ((*_conv(a, b), nn.ReLU(), nn.MaxPool2d(2)) for a, b in zip(widths, widths[1:], strict=False))
        self.stages = nn.Sequential(*(layer for stage in stages for layer in stage))
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.head = nn.Linear(9 * 4 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(x)).flatten(1)


class MixerBlock(nn.Module):
    """A 7 x 7 convolution of each channel beside a shortcut, then one across channels (Trockman and Kolter 2022)."""

    def __init__(self, width: int):
        super().__init__()
        depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.space = nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(width))
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(x + self.space(x))


class MixerNetwork(Network):
    """Patches of 4 x 4 pixels, four mixing blocks of one width, average pooling, a linear head."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.GELU(), nn.BatchNorm2d(width))
        self.blocks = nn.Sequential(*(MixerBlock(width) for _ in range(4)))
        self.head = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(self.patches(x)).mean(dim=(2, 3))


FAMILIES = {"small": SmallNetwork, "plain": PlainNetwork, "mixer": MixerNetwork}
