"""Networks of classifiers by name: the families of ``models.small``, torchvision's and timm's."""

import difflib
import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import did_you_mean
from ace_counterfactuals.models.loading import load_into, unfilled
from ace_counterfactuals.models.small import FAMILIES

PACKAGES = {"timm": "timm", "transformers": "transformers", "onnx2fx": "onnx onnx2fx", "diffusers": "diffusers"}


def package(name: str) -> ModuleType:
    """A package that not everybody has."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"needs a package that is not installed: pip install {PACKAGES[name]}") from None


def timm_name(arch: str) -> str:
    """timm's own name of 'timm:NAME'.  Raises ValueError for one that it does not have, such as an address."""
    timm, name = package("timm"), arch.removeprefix("timm:")
    if name.partition(".")[0] not in timm.list_models():
        raise ValueError(f"{arch}: no such network{did_you_mean(name, timm.list_models())}")
    return name


def build_classifier(arch: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """An untrained network, of normalised input: one of ``models.small``, a torchvision classifier, or 'timm:NAME'.

    Raises ValueError for a name or a width that is none.
    """
    if arch.startswith("timm:"):
        return package("timm").create_model(timm_name(arch), num_classes=num_classes, in_chans=in_channels)
    arch = plain_name(arch)
    family, _, width = arch.partition("-")
    if family in FAMILIES:
        if not width.isdecimal() or not 4 <= int(width) <= 512:
            raise ValueError(f"architecture {arch}: the width must be a number from 4 to 512, as in {family}-32")
        return FAMILIES[family](int(width), num_classes, in_channels)
    import torchvision  # takes as long as torch itself

    names = torchvision.models.list_models(module=torchvision.models)
    if arch not in names:
        near = difflib.get_close_matches(arch, names, 3) or ["small-32", "resnet18", "resnet50"]
        raise ValueError(f"architecture {arch[:60]!r} is not known; near it: {', '.join(near)}")
    extra: dict[str, Any] = {}
    if arch in ("googlenet", "inception_v3"):  # as their published weights want; no heads for training only
        extra = {"aux_logits": False, "init_weights": True, "transform_input": True}
    network = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **extra)
    if in_channels != 3:
        parent, _, name = _first_layer(network).rpartition(".")
        first = getattr(network.get_submodule(parent), name)
        sizes = {key: getattr(first, key) for key in ("out_channels", "kernel_size", "stride", "padding", "groups")}
        setattr(network.get_submodule(parent), name, nn.Conv2d(in_channels, **sizes, bias=first.bias is not None))
    return network


def plain_name(arch: str) -> str:
    """'torchvision:resnet18' is resnet18."""
    return arch.removeprefix("torchvision:")


def torchvision_near(text: str) -> str:
    """'torchvision:resnet50' for 'resnet50' and what is nearly that, '' for other texts."""
    import torchvision

    near = difflib.get_close_matches(text, torchvision.models.list_models(module=torchvision.models), 1, cutoff=0.8)
    return f"torchvision:{near[0]}" if near else ""


def _first_layer(network: nn.Module) -> str:
    """The name of the convolution that takes the images."""
    layers = network.named_modules()
    return next(name for name, layer in layers if isinstance(layer, nn.Conv2d) and layer.in_channels == 3)


def _unfilled(arch: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    import torchvision  # noqa: F401 (what it makes while it is imported must be real)

    if arch.startswith("timm:"):
        timm_name(arch)
    with unfilled():
        return build_classifier(arch, num_classes, in_channels)


def ends(arch: str) -> tuple[str, str]:
    """The names of the weights that take the images and that give the logits.  Raises ValueError for no such name."""
    network = _unfilled(arch, 1000)
    shapes = {key: value.shape for key, value in network.state_dict().items() if key.endswith("weight")}
    return f"{_first_layer(network)}.weight", [key for key, shape in shapes.items() if shape[0] == 1000][-1]


def build_loaded(
    arch: str, num_classes: int, in_channels: int, state: dict[str, Tensor], *, path, what: str
) -> nn.Module:
    """The network with the weights of ``state``, as ``load_into`` takes them.

    A small file may name a large network: it costs no memory until the file is known to fit.
    """
    network = _unfilled(arch, num_classes, in_channels)
    load_into(network, state, path=path, what=what)
    if any(buffer.is_meta for buffer in network.buffers()):  # which is computed, and in no file
        with torch.random.fork_rng(devices=[]):
            network = build_classifier(arch, num_classes, in_channels)
        load_into(network, state, path=path, what=what)
    return network
