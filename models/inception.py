"""The Inception network of FID, from pytorch-fid, with its published weights."""

from unittest.mock import patch

import torch

from ace_counterfactuals.models.judge import Judge
from ace_counterfactuals.models.loading import fetched, load_into, load_state


def pytorch_fid_inception():
    """The module of pytorch-fid that knows the network.  Raises ValueError where it is not installed."""
    try:
        from pytorch_fid import inception
    except ImportError:
        raise ValueError("FID needs pytorch-fid, which is not installed: pip install -e .[eval]") from None
    return inception


def published_inception():
    """The file that pytorch-fid keeps in torch.hub's cache, fetched on first use."""
    return fetched(pytorch_fid_inception().FID_WEIGHTS_URL)


def load_inception(path="") -> Judge:
    """Images -> features (N, 2048); they are resized to 299 inside.  path: '' is the published file."""
    from torchvision.models import Inception3  # takes as long as torch itself

    inception = pytorch_fid_inception()
    path = path or published_inception()
    state = load_state(path)
    empty = []
    with (  # pytorch-fid reads no file but its cached one, and does not say what fits ill
        torch.random.fork_rng(devices=[]),
        patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(Inception3, "load_state_dict", lambda network, _: empty.append(network)),
    ):
        network = inception.InceptionV3()
    load_into(empty[0], state, path=path, what="pytorch-fid's Inception")
    return Judge(network, read=lambda features: features[0].flatten(1))
