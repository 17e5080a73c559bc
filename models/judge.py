"""What the networks that judge counterfactuals have in common."""

from collections.abc import Callable

from torch import Tensor, nn


class Judge(nn.Module):
    """A network that is asked about images (N, 3, H, W) in [0, 1], frozen and in eval mode.

    prepare: what the network wants of an image; read: what is asked of its output.
    """

    def __init__(self, network: nn.Module, prepare: Callable | None = None, read: Callable | None = None):
        super().__init__()
        self.network, self.prepare, self.read = network, prepare, read
        self.eval().requires_grad_(False)

    def forward(self, *images: Tensor):
        """Of one batch of images, or of two that are compared."""
        output = self.network(*(self.prepare(image) if self.prepare else image for image in images))
        return self.read(output) if self.read else output


def channels(image: Tensor, values: tuple[float, ...]) -> Tensor:
    """A number for each channel, as (1, 3, 1, 1) of the image's type and device."""
    return image.new_tensor(values).view(1, 3, 1, 1)
