"""The attribute oracles of MNAC and CD: images in [0, 1] -> probabilities (N, attributes)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ace_counterfactuals.models.classifiers import classifier_of, is_ours, open_ours
from ace_counterfactuals.models.judge import Judge, channels
from ace_counterfactuals.models.loading import WeightsError, describe, load_into, load_weights, state_dict
from ace_counterfactuals.models.resnets import build_caffe_resnet50, from_caffe

BGR_MEAN = (131.0912, 103.8827, 91.4953)  # in this order, the reverse of FVA's: so the CelebA oracle was trained


class Oracle(Judge):
    """Images -> probabilities (N, attributes); decisions are those above 0.5.  class_names: of a file of ours."""

    def __init__(self, network: nn.Module, prepare=None, class_names: tuple[str, ...] | None = None):
        super().__init__(network, prepare, torch.sigmoid)
        self.class_names = class_names


def _resize(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(224, 224), mode="bicubic", align_corners=False)


def _prepare_celeba(images: Tensor) -> Tensor:
    """RGB -> BGR, minus the mean, then to 224."""
    return _resize(images.flip(1) - channels(images, BGR_MEAN) / 255)


def _prepare_celebahq(images: Tensor) -> Tensor:
    """[-1, 1] and to 224, once: the original normalises a second time in MNAC, not in CD."""
    return _resize(2 * images - 1)


def load_oracle(path, *, of: str = "") -> Oracle:
    """The oracle in ``path``, frozen and in eval mode: CelebA's, CelebA-HQ's (STEEX), or a classifier file of ours.

    The file says which it is; ``of``, "CelebA" or "CelebA-HQ", refuses the other one.
    """
    tree, name = load_weights(path), str(path)
    if is_ours(tree):
        network, header = open_ours(tree, name)
        if not header.attributes:
            raise WeightsError(f"{name}: tells exclusive classes apart; an oracle's attributes are independent")
        return Oracle(classifier_of(network, header), class_names=tuple(header.class_names))
    state = state_dict(tree, name=name)
    head = state.get("classifier.weight")
    if "feat_extract.conv1_7x7_s2.weight" not in state or head is None or head.shape[1:] not in ((128,), (2048,)):
        raise WeightsError(f"{name}: is {describe(state)}, not an attribute oracle")
    is_hq = head.shape[1] == 2048
    own = "CelebA-HQ" if is_hq else "CelebA"
    if of not in ("", own):
        raise WeightsError(f"{name}: is {own}'s oracle; wanted {of}'s")
    return Oracle(_load_trunk(state, name, is_hq), _prepare_celebahq if is_hq else _prepare_celeba)


def _load_trunk(state: dict[str, Tensor], name: str, is_hq: bool) -> nn.Module:
    """CelebA: pooled features, a 1x1 convolution to 128 without bias, then linear. CelebA-HQ: linear at once."""
    outputs, width = state["classifier.weight"].shape
    linear = nn.Linear(width, outputs)
    trunk = build_caffe_resnet50(linear if is_hq else nn.Sequential(nn.Linear(2048, width, bias=False), linear))
    place = "fc" if is_hq else "fc.1"
    names = {"classifier.weight": f"{place}.weight", "classifier.bias": f"{place}.bias"}
    names["feat_extract.feat_extract.weight"] = "fc.0.weight"
    state = {names.get(key, key): value for key, value in from_caffe(state, trunk, "feat_extract.").items()}
    if "fc.0.weight" in state:
        state["fc.0.weight"] = state["fc.0.weight"].flatten(1)  # a 1x1 convolution of one pixel is a linear layer
    load_into(trunk, state, path=name, what="an attribute oracle")
    return trunk
