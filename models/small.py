"""A small convolutional network for pictures of about 28 to 64 pixels."""

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


class SmallNetwork(nn.Module):
    """(N, 3, H, W) -> (N, num_classes): a stem, three stages of widths w, 2w and 4w, average pooling, a linear head."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, width), nn.SiLU())
        self.stages = nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 4 * width, stride=2),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean(dim=(2, 3)))
