"""torchvision's ResNet-50 as Caffe had it, and the table of Caffe's names for it."""

import torch
from torch import Tensor, nn

NAMES = {"conv1": "1x1_reduce", "conv2": "3x3", "conv3": "1x1_increase", "downsample.0": "1x1_proj"}
NORMS = {name.replace("conv", "bn").replace("sample.0", "sample.1"): f"{caffe}_bn" for name, caffe in NAMES.items()}


def build_resnet50(head: nn.Module) -> nn.Module:
    """torchvision's ResNet-50 with this head. Its initial weights, to be replaced, touch nobody's random numbers."""
    from torchvision.models import resnet50  # takes as long as torch itself

    with torch.random.fork_rng(devices=[]):
        network = resnet50(weights=None)
    network.fc = head
    return network


def build_caffe_resnet50(head: nn.Module) -> nn.Module:
    """A bottleneck's stride sits in its first convolution, and max-pool rounds up instead of padding."""
    network = build_resnet50(head)
    network.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return network


def caffe_name(name: str) -> str:
    """'layer3.1.bn2.weight' -> 'conv4_2_3x3_bn.weight'; 'bn1.bias' -> 'conv1_7x7_s2_bn.bias'."""
    module, leaf = name.rsplit(".", 1)
    if not module.startswith("layer"):
        return {"conv1": "conv1_7x7_s2", "bn1": "conv1_7x7_s2_bn"}[module] + f".{leaf}"
    layer, block, part = module.split(".", 2)
    return f"conv{int(layer[-1]) + 1}_{int(block) + 1}_{(NAMES | NORMS)[part]}.{leaf}"


def from_caffe(state: dict[str, Tensor], trunk: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state with the names that ``trunk`` has; what has no place there keeps its name."""
    table = {prefix + caffe_name(name): name for name in trunk.state_dict() if not name.startswith("fc.")}
    return {table.get(name, name): value for name, value in state.items()}
