"""SimSiam's encoder (ResNet-50, batch 256), whose outputs S3 compares."""

from torch import Tensor, nn

from ace_counterfactuals.models.classifiers import IMAGENET
from ace_counterfactuals.models.judge import Judge, channels
from ace_counterfactuals.models.loading import WeightsError, describe, load_into, load_state
from ace_counterfactuals.models.resnets import build_resnet50

WIDTH = 2048


def _prepare(images: Tensor) -> Tensor:
    mean, std = IMAGENET
    return (images - channels(images, mean)) / channels(images, std)


def _projector() -> nn.Sequential:
    def hidden() -> list[nn.Module]:
        return [nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True)]

    return nn.Sequential(*hidden(), *hidden(), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH, affine=False))


def load_simsiam(path) -> Judge:
    """Images -> the encoder's outputs (N, 2048), its projector included; the predictor is left out."""
    state = load_state(path)
    encoder = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    if not encoder:
        raise WeightsError(f"{path}: is {describe(state)}, not SimSiam's")
    network = build_resnet50(_projector())
    load_into(network, encoder, path=path, what="SimSiam's encoder")
    return Judge(network, _prepare)
