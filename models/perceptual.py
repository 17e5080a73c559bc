"""LPIPS (Zhang et al. 2018), from the package lpips: its own linear layers over a VGG-16 of torchvision."""

from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import nn

from ace_counterfactuals.models.judge import Judge
from ace_counterfactuals.models.loading import fetched, load_into, load_state


def published_vgg16():
    """torchvision's file in torch.hub's cache, fetched on first use."""
    from torchvision.models.vgg import VGG16_Weights  # takes as long as torch itself

    return fetched(VGG16_Weights.IMAGENET1K_V1.url)


def load_lpips(path="") -> Judge:
    """Two batches of images -> distances (N,), >= 0, 0 for equal pictures.

    path: the VGG-16 below, a state dict as torchvision publishes it; '' is torchvision's own.
    """
    try:
        import lpips
    except ImportError:
        raise ValueError("LPIPS needs lpips, which is not installed: pip install -e .[eval]") from None
    from torchvision.models.vgg import cfgs, make_layers

    path = path or published_vgg16()
    state = load_state(path)
    backbone = nn.Module()
    with torch.random.fork_rng(devices=[]):
        backbone.features = make_layers(cfgs["D"], batch_norm=False)
        state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
        load_into(backbone, state, path=path, what="torchvision's VGG-16")
        # lpips asks torchvision for a network in a way that torchvision warns of, and that would fetch weights.
        builder = SimpleNamespace(vgg16=lambda pretrained: backbone)
        with patch.object(lpips.pretrained_networks, "tv", builder):
            network = lpips.LPIPS(net="vgg", verbose=False)
    return Judge(network, lambda images: 2 * images - 1, torch.flatten)
