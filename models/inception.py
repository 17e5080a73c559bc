"""The Inception network of FID, from pytorch-fid, with its published weights."""

from pathlib import Path
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn

from ace_counterfactuals.models.loading import WeightsError, load_into, load_weights, state_dict

FLAG = "--inception-weights"
WIDTH = 2048


class Inception(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> features (N, 2048); resized to 299 inside."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0].flatten(1)


def pytorch_fid_inception():
    """The module of pytorch-fid that knows the network."""
    try:
        from pytorch_fid import inception
    except ImportError:
        raise ValueError("FID needs pytorch-fid, which is not installed: pip install -e .[eval]") from None
    return inception


def published_inception() -> Path:
    """The file that pytorch-fid keeps in torch.hub's cache, fetched on first use."""
    return fetched(pytorch_fid_inception().FID_WEIGHTS_URL, FLAG)


def load_inception(path="") -> Inception:
    """The network of ``path``, or else of the published file."""
    inception = pytorch_fid_inception()
    path = path or published_inception()
    name = f"{FLAG} {path}"
    state = state_dict(load_weights(path, flag=FLAG), name=name)
    empty = []
    with (  # pytorch-fid reads no file but its cached one, and does not say what fits ill
        torch.random.fork_rng(devices=[]),
        patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(torchvision.models.Inception3, "load_state_dict", lambda network, _: empty.append(network)),
    ):
        network = inception.InceptionV3()
    load_into(empty[0], state, path=name, what="pytorch-fid's Inception")
    return Inception(network).eval().requires_grad_(False)


def fetched(url: str, flag: str) -> Path:
    """The file of ``url`` in torch.hub's cache, whose name ends in the head of its SHA-256; fetched if not there."""
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            prefix = target.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:  # no network; another file than expected
        reason = getattr(error, "reason", None) or error
        raise WeightsError(f"{flag}: not given, and {url} cannot be fetched ({reason}); give its file") from None
    return target
