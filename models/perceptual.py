"""LPIPS (Zhang et al. 2018), from the package lpips: its own linear layers over a VGG-16 of torchvision."""

from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.models.vgg import VGG16_Weights, cfgs, make_layers

from ace_counterfactuals.models.loading import fetched, load_into, load_state


class Perceptual(nn.Module):
    """Two batches (N, 3, H, W) in [0, 1] -> distances (N,), >= 0, 0 for equal pictures."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return self.network(images, others, normalize=True).flatten()


def published_vgg16():
    """torchvision's file in torch.hub's cache, fetched on first use."""
    return fetched(VGG16_Weights.IMAGENET1K_V1.url)


def load_lpips(path="") -> Perceptual:
    """Over the VGG-16 of ``path``, a state dict as torchvision publishes it, or over torchvision's own."""
    try:
        import lpips
    except ImportError:
        raise ValueError("LPIPS needs lpips, which is not installed: pip install -e .[eval]") from None
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
    return Perceptual(network).eval().requires_grad_(False)
