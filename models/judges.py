"""The networks of the metrics, each with the preparation of images that it was trained with."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Inception3, VGG16_Weights, resnet50
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from ace_counterfactuals.models.classifiers import (
    IMAGENET,
    Wanted,
    classifier_of,
    is_ours,
    open_ours,
    read_classifier,
)
from ace_counterfactuals.models.loading import (
    WeightsError,
    describe,
    fetched,
    load_into,
    load_state,
    load_weights,
    state_dict,
    unfilled,
)

FACES_BGR_MEAN = (91.4953, 103.8827, 131.0912)
CELEBA_BGR_MEAN = FACES_BGR_MEAN[::-1]  # in the order of RGB: so the CelebA oracle was trained
WIDTH = 2048  # of the features of a ResNet-50


class Judge(nn.Module):
    """A network that is asked about images (N, 3, H, W) in [0, 1], frozen and in eval mode.

    prepare: what the network wants of an image; read: what is asked of its output.
    class_names: what an oracle's attributes are called, where its file tells.
    """

    class_names: tuple[str, ...] | None = None

    def __init__(
        self,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor] = lambda images: images,
        read: Callable = lambda output: output,
    ):
        super().__init__()
        self.network, self.prepare, self.read = network, prepare, read
        self.eval().requires_grad_(False)

    def forward(self, *images: Tensor) -> Tensor:
        """Of one batch of images, or of two that are compared."""
        return self.read(self.network(*map(self.prepare, images)))


def _channels(image: Tensor, values: tuple[float, ...]) -> Tensor:
    """A number for each channel, of the image's type and device."""
    return image.new_tensor(values).view(3, 1, 1)


# Inception (FID) and LPIPS, from packages of their own


def optional(package: str, metric: str) -> ModuleType:
    """A package, or a module of it, that only ``metric`` needs.  Raises ValueError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        reason = f"{metric} needs {package.partition('.')[0]}, which is not installed: pip install -e .[eval]"
        raise ValueError(reason) from None


def published_inception() -> Path:
    """The file that pytorch-fid keeps in torch.hub's cache, fetched on first use."""
    return fetched(optional("pytorch_fid.inception", "FID").FID_WEIGHTS_URL)


def load_inception(path) -> Judge:
    """pytorch-fid's Inception: images, which it resizes to 299 -> features (N, 2048)."""
    inception, state = optional("pytorch_fid.inception", "FID"), load_state(path)
    empty: list[nn.Module] = []
    with (  # pytorch-fid reads no file but its cached one, and does not say what fits ill
        unfilled(),
        patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(Inception3, "load_state_dict", lambda network, _: empty.append(network)),
    ):
        network = inception.InceptionV3()
    load_into(empty[0], state, path=path, what="pytorch-fid's Inception")
    return Judge(network, read=lambda features: features[0].flatten(1))


def published_vgg16() -> Path:
    """torchvision's file in torch.hub's cache, fetched on first use."""
    return fetched(VGG16_Weights.IMAGENET1K_V1.url)


def load_lpips(path) -> Judge:
    """LPIPS (Zhang et al. 2018): two batches of images -> distances (N,), >= 0, 0 for equal pictures.

    path: the VGG-16 below the package's own linear layers, a state dict as torchvision publishes it.
    """
    lpips = optional("lpips", "LPIPS")
    state = {key: value for key, value in load_state(path).items() if not key.startswith("classifier.")}
    backbone = nn.Module()
    with unfilled():
        backbone.features = make_layers(cfgs["D"], batch_norm=False)
    load_into(backbone, state, path=path, what="torchvision's VGG-16")
    # lpips asks torchvision for a network in a way that torchvision warns of, and that would fetch weights.
    builder = SimpleNamespace(vgg16=lambda pretrained: backbone)
    with torch.random.fork_rng(devices=[]), patch.object(lpips.pretrained_networks, "tv", builder):
        network = lpips.LPIPS(net="vgg", verbose=False)
    return Judge(network, lambda images: 2 * images - 1, torch.flatten)


# The features of any classifier


def features_name(path, *, heads: Mapping[int, int] | None = None, arch: str = "") -> str:
    """What to call the network of ``load_features``."""
    tree = load_weights(path)
    return str(tree.get("arch")) if is_ours(tree) else arch or ("densenet121" if heads else "resnet50")


def load_features(path, *, heads: Mapping[int, int] | None = None, arch: str = "") -> Judge:
    """What a classifier sees before it decides: images -> the input of its last linear layer (N, D).

    path: a file that ``load_classifier`` reads.  heads: as it takes them.
    arch: torchvision's name; '' is resnet50 where there are no heads.
    """
    tree, heads = load_weights(path), {} if arch or not heads else heads
    query = 0 if is_ours(tree) else next(iter(heads), None)  # any that the file answers
    arch = arch or ("" if heads else "resnet50")
    classifier = read_classifier(tree, Wanted(path=str(path), query=query, heads=heads, arch=arch))
    linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise WeightsError(f"{path}: has no linear layer whose input could be its features")
    seen: list[Tensor] = []
    linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    return Judge(classifier, read=lambda _: seen.pop())


# ResNet-50s: SimSiam (S3), VGGFace2 (FVA, FS), attribute oracles (MNAC, CD)


def load_simsiam(path) -> Judge:
    """SimSiam (batch 256): images -> the encoder's outputs (N, 2048), its projector included, the predictor not."""

    def hidden() -> list[nn.Module]:
        return [nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True)]

    def prepare(images: Tensor) -> Tensor:
        mean, std = (_channels(images, values) for values in IMAGENET)
        return (images - mean) / std

    state = load_state(path)
    encoder = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    if not encoder:
        raise WeightsError(f"{path}: is {describe(state)}, not SimSiam's")
    with unfilled():
        network = resnet50()
        network.fc = nn.Sequential(*hidden(), *hidden(), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH, affine=False))
    load_into(network, encoder, path=path, what="SimSiam's encoder")
    return Judge(network, prepare)


def caffe_resnet50(head: nn.Module) -> nn.Module:
    """As Caffe had it: a bottleneck's stride is in its first convolution, and max-pool rounds up instead of padding."""
    network = resnet50()
    network.fc = head
    network.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    for block in network.modules():
        if isinstance(block, Bottleneck) and block.stride == 2:
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    return network


CAFFE = {"conv1": "1x1_reduce", "conv2": "3x3", "conv3": "1x1_increase", "downsample.0": "1x1_proj"}
CAFFE |= {name.replace("conv", "bn").replace("sample.0", "sample.1"): f"{caffe}_bn" for name, caffe in CAFFE.items()}


def caffe_name(name: str) -> str:
    """'layer3.1.bn2.weight' -> 'conv4_2_3x3_bn.weight'; 'bn1.bias' -> 'conv1_7x7_s2_bn.bias'."""
    module, leaf = name.rsplit(".", 1)
    if not module.startswith("layer"):
        return {"conv1": "conv1_7x7_s2", "bn1": "conv1_7x7_s2_bn"}[module] + f".{leaf}"
    layer, block, part = module.split(".", 2)
    return f"conv{int(layer[-1]) + 1}_{int(block) + 1}_{CAFFE[part]}.{leaf}"


def load_vggface2(path) -> Judge:
    """VGGFace2's: images whose shorter side is 224 -> features (N, 2048), averaged over all positions.

    path: the published ``resnet50_ft_weight.pkl``, whose 8,631 identities are left out.
    """
    state = {key: value for key, value in load_state(path).items() if not key.startswith("fc.")}
    with unfilled():
        network = caffe_resnet50(nn.Identity())
    load_into(network, state, path=path, what="VGGFace2's ResNet-50")
    return Judge(network, lambda images: 255 * images.flip(1) - _channels(images, FACES_BGR_MEAN))


def _to_224(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(224, 224), mode="bicubic", align_corners=False)


def _prepare_celeba(images: Tensor) -> Tensor:
    """RGB -> BGR, minus the mean, then to 224."""
    return _to_224(images.flip(1) - _channels(images, CELEBA_BGR_MEAN) / 255)


def _prepare_celebahq(images: Tensor) -> Tensor:
    """[-1, 1] and to 224, once: the original normalises a second time in MNAC, not in CD."""
    return _to_224(2 * images - 1)


def load_oracle(path, *, of: str = "") -> Judge:
    """Images -> probabilities (N, attributes): CelebA's oracle, CelebA-HQ's (STEEX), or a classifier file of ours.

    The file says which it is; ``of``, "CelebA" or "CelebA-HQ", refuses the other one.
    """
    tree, name = load_weights(path), str(path)
    if is_ours(tree):
        network, header = open_ours(tree, name)
        if not header.attributes:
            raise WeightsError(f"{name}: tells exclusive classes apart; an oracle's attributes are independent")
        oracle = Judge(classifier_of(network, header), read=torch.sigmoid)
        oracle.class_names = tuple(header.class_names)
        return oracle
    state = state_dict(tree, name=name)
    head = state.get("classifier.weight")
    if "feat_extract.conv1_7x7_s2.weight" not in state or head is None or head.shape[1:] not in ((128,), (WIDTH,)):
        raise WeightsError(f"{name}: is {describe(state)}, not an attribute oracle")
    is_hq = head.shape[1] == WIDTH
    own = "CelebA-HQ" if is_hq else "CelebA"
    if of not in ("", own):
        raise WeightsError(f"{name}: is {own}'s oracle; wanted {of}'s")
    return Judge(_load_trunk(state, name), _prepare_celebahq if is_hq else _prepare_celeba, torch.sigmoid)


def _load_trunk(state: dict[str, Tensor], name: str) -> nn.Module:
    """CelebA: pooled features, a 1x1 convolution to 128 without bias, then linear. CelebA-HQ: linear at once."""
    outputs, width = state["classifier.weight"].shape
    with unfilled():
        narrow = nn.Identity() if width == WIDTH else nn.Linear(WIDTH, width, bias=False)
        trunk = caffe_resnet50(nn.Sequential(narrow, nn.Linear(width, outputs)))
    names = {f"feat_extract.{caffe_name(own)}": own for own in trunk.state_dict() if not own.startswith("fc.")}
    names |= {"classifier.weight": "fc.1.weight", "classifier.bias": "fc.1.bias"}
    names["feat_extract.feat_extract.weight"] = "fc.0.weight"
    state = {names.get(key, key): value for key, value in state.items()}
    if "fc.0.weight" in state:
        state["fc.0.weight"] = state["fc.0.weight"].flatten(1)  # a 1x1 convolution of one pixel is a linear layer
    load_into(trunk, state, path=name, what="an attribute oracle")
    return trunk
