"""SimSiam's encoder (ResNet-50, batch 256), whose outputs S3 compares."""

from torch import Tensor, nn

from ace_counterfactuals.models.classifiers import IMAGENET
from ace_counterfactuals.models.loading import WeightsError, describe, load_into, load_state
from ace_counterfactuals.models.resnets import build_resnet50

WIDTH = 2048


class SimSiam(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> the encoder's outputs (N, 2048), its projector included."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
        return self.encoder((images - mean) / std)


def _projector() -> nn.Sequential:
    hidden = [
        layer
        for _ in range(2)
        for layer in (nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True))
    ]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH, affine=False))


def load_simsiam(path) -> SimSiam:
    """The published checkpoint, frozen and in eval mode; the predictor is left out."""
    state = load_state(path)
    encoder = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    if not encoder:
        raise WeightsError(f"{path}: is {describe(state)}, not SimSiam's")
    network = build_resnet50(_projector())
    load_into(network, encoder, path=path, what="SimSiam's encoder")
    return SimSiam(network).eval().requires_grad_(False)
