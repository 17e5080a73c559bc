"""The classifiers that are explained: each takes images in [0, 1] and normalises them itself."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ace_counterfactuals.models.loading import (
    WeightsError,
    check_fit,
    describe,
    load_into,
    load_weights,
    save_weights,
    state_dict,
)
from ace_counterfactuals.models.small import FAMILIES

FORMAT, VERSION = "ace-classifier", 1
FLAG = "--classifier_path"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"  # what `pretrained=True` was

BINARY = frozenset(("CelebA", "CelebAMV", "CelebAHQ", "BDD100k", "BDDOIA"))
# Data set -> label_query -> the logit of its published DenseNet.
LOGITS = {
    **dict.fromkeys(("CelebA", "CelebAMV"), {i: i for i in range(40)}),
    "CelebAHQ": {20: 0, 31: 1, 39: 2},
    **dict.fromkeys(("BDD100k", "BDDOIA"), {i: i for i in range(4)}),
}


class Classifier(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> logits: (N,) where ``binary``, else (N, num_outputs)."""

    def __init__(
        self,
        network: nn.Module,
        normalisation: tuple[Sequence[float], Sequence[float]],
        *,
        num_outputs: int,
        view: int | str = "all",
        class_names: tuple[str, ...] | None = None,
        image_size: int | None = None,
    ):
        """view: 'all' logits; one logit, by index; or 'difference' of two exclusive classes."""
        super().__init__()
        self.network, self.view = network, view
        self.binary = view != "all"
        self.num_outputs = 1 if self.binary else num_outputs
        self.class_names, self.image_size = class_names, image_size
        for name, values in zip(("mean", "std"), normalisation, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network((images - self.mean) / self.std)
        if self.view == "all":
            return logits
        return logits[:, 1] - logits[:, 0] if self.view == "difference" else logits[:, self.view]


def build_classifier(arch: str, num_classes: int) -> nn.Module:
    """An untrained network, of normalised input: one of ``models.small``, or a torchvision classifier, by name."""
    family, _, width = arch.partition("-")
    if family in FAMILIES:
        if not width.isdecimal() or not 4 <= int(width) <= 512:
            raise ValueError(f"architecture {arch}: the width must be a number from 4 to 512, as in {family}-32")
        return FAMILIES[family](int(width), num_classes)
    names = torchvision.models.list_models(module=torchvision.models)
    if arch not in names:
        near = difflib.get_close_matches(arch, names, 3) or ["small-32", "resnet18", "resnet50"]
        raise ValueError(f"architecture {arch[:60]!r} is not known; near it: {', '.join(near)}")
    extra: dict[str, Any] = {}
    if arch in ("googlenet", "inception_v3"):  # as their published weights want; no heads for training only
        extra = {"aux_logits": False, "init_weights": True, "transform_input": True}
    return torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **extra)


def save_classifier(
    path,
    network: nn.Module,
    *,
    arch: str,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int,
    attributes: bool = False,
) -> None:
    """Write a file of ours: all that is needed to use the network again. ``attributes``: labels are independent."""
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "arch": arch,
        "class_names": list(class_names),
        "mean": [float(v) for v in mean],
        "std": [float(v) for v in std],
        "image_size": int(image_size),
        "attributes": bool(attributes),
        "state_dict": {key: value.detach().cpu() for key, value in network.state_dict().items()},
    }
    _check_ours(tree, str(path))
    save_weights(path, tree)


def load_classifier(path, *, dataset: str, query: int | None = None, arch: str | None = None) -> Classifier:
    """The classifier in ``path``, frozen and in eval mode, as --dataset, --label_query and --classifier_arch say.

    A file of ours is used with any data set. Else CelebA and CelebAMV want DiVE's file, CelebAHQ and BDD STEEX's,
    ImageNet torchvision's ResNet-50 (fetched if no path is given); ``arch`` names another torchvision classifier.
    """
    if not str(path or ""):
        path = _imagenet_weights(dataset, arch)
    tree = load_weights(path, flag=FLAG)
    name = f"{FLAG} {path}"
    if is_ours(tree):
        classifier = _ours(tree, name, dataset, query)
    elif arch is None and dataset in LOGITS:
        classifier = _densenet(state_dict(tree, name=name), name, dataset, query)
    elif arch is None and dataset != "ImageNet":
        raise WeightsError(
            f"{name}: is {describe(state_dict(tree, name=name))}; --dataset {dataset} wants a file of "
            "train_classifier.py, or name the architecture: --classifier_arch resnet50"
        )
    else:
        classifier = _torchvision(state_dict(tree, name=name), name, dataset, query, arch or "resnet50")
    return classifier.eval().requires_grad_(False)


def cached_resnet50() -> Path:
    """Where torch.hub keeps torchvision's ResNet-50."""
    return Path(torch.hub.get_dir()) / "checkpoints" / RESNET50_URL.rsplit("/", 1)[1]


def _imagenet_weights(dataset: str, arch: str | None) -> Path:
    """torchvision's ResNet-50 in torch.hub's cache, fetched on first use."""
    if dataset != "ImageNet" or arch not in (None, "resnet50"):
        raise WeightsError(f"{FLAG}: not given; --dataset {dataset} needs the file of the classifier to explain")
    target = cached_resnet50()
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(RESNET50_URL, str(target), hash_prefix="0676ba61", progress=False)
    except (OSError, RuntimeError) as error:  # no network; another file than expected
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{FLAG}: not given, and {RESNET50_URL} cannot be fetched ({reason}); give its file"
        ) from None
    return target


class _ShapesOnly(TorchFunctionMode):
    """Parameters are made without memory or random numbers; other tensors stay real: RegNet computes its widths."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def _shapes(arch: str, outputs: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]), _ShapesOnly():
        return build_classifier(arch, outputs)


def _build_loaded(arch: str, outputs: int, state: dict[str, Tensor], name: str, what: str) -> nn.Module:
    """Checked by shapes first: a small file that names a large network must not cost memory.

    Building draws initial weights, which are thrown away: from a generator that nobody else uses.
    """
    check_fit(_shapes(arch, outputs), state, path=name, what=what)
    with torch.random.fork_rng(devices=[]):
        network = build_classifier(arch, outputs)
    load_into(network, state, path=name, what=what)
    return network


def _final_layer(arch: str) -> str:
    shapes = {key: value.shape for key, value in _shapes(arch, 1000).state_dict().items()}
    return [key for key, shape in shapes.items() if key.endswith("weight") and shape[0] == 1000][-1]


def _rows(weight: Tensor) -> int:
    return weight.shape[0] if weight.dim() else 0


def _torchvision(state: dict[str, Tensor], name: str, dataset: str, query: int | None, arch: str) -> Classifier:
    try:
        last = _final_layer(arch)
    except ValueError as error:
        raise WeightsError(f"--classifier_arch: {error}") from None
    if last not in state:
        raise WeightsError(f"{name}: is {describe(state)}, not torchvision's {arch}; see --classifier_arch")
    outputs = _rows(state[last])
    if dataset == "ImageNet" and outputs != 1000:
        raise WeightsError(f"{name}: has {outputs} outputs, but --dataset ImageNet has 1000 classes")
    if arch in ("googlenet", "inception_v3"):
        state = {k: v for k, v in state.items() if not k.lower().startswith("aux")}
    if arch.startswith("densenet"):  # torchvision's own files still have names of before 2018
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", k): v for k, v in state.items()}
    if dataset in LOGITS and outputs == len(LOGITS[dataset]):
        query = LOGITS[dataset].get(query)
    view = _view(name, dataset, query, outputs, attributes=outputs != 2) if dataset in BINARY else "all"
    network = _build_loaded(arch, outputs, state, name, f"torchvision's {arch}")
    return Classifier(network, IMAGENET, num_outputs=outputs, view=view)


def _densenet(state: dict[str, Tensor], name: str, dataset: str, query: int | None) -> Classifier:
    logits = LOGITS[dataset]
    weight = state.get("classifier.weight")
    if "feat_extract.feat_extract.features.conv0.weight" not in state or weight is None:
        advice = "; for another network name it: --classifier_arch resnet50"
        raise WeightsError(f"{name}: is {describe(state)}, not the DenseNet-121 of --dataset {dataset}{advice}")
    if _rows(weight) != len(logits):
        raise WeightsError(f"{name}: has {_rows(weight)} outputs, but --dataset {dataset} wants {len(logits)}")
    if query not in logits:
        raise WeightsError(f"--label_query {query}: --dataset {dataset} knows {_listed(list(logits))}")
    state = {key.removeprefix("feat_extract.feat_extract."): value for key, value in state.items()}
    network = _build_loaded("densenet121", len(logits), state, name, "a DenseNet-121")
    return Classifier(network, HALF, num_outputs=len(logits), view=logits[query])


def _listed(values: list[int]) -> str:
    if values == list(range(len(values))):
        return f"0 to {len(values) - 1}"
    return ", ".join(map(str, values))


def _ours(tree: dict, name: str, dataset: str, query: int | None) -> Classifier:
    network, header = open_ours(tree, name)
    names = tuple(header["class_names"])
    attributes = header["attributes"]
    if not attributes and dataset not in BINARY and len(names) > 1:
        view: int | str = "all"
    else:
        view = _view(name, dataset, query, len(names), attributes=attributes)
    normalisation = (header["mean"], header["std"])
    return Classifier(
        network,
        normalisation,
        num_outputs=len(names),
        view=view,
        class_names=names if view == "all" else _two_names(names, view),
        image_size=header["image_size"],
    )


def _two_names(names: tuple[str, ...], view: int | str) -> tuple[str, str]:
    if view == "difference":
        return names[0], names[1]
    return f"not {names[view]}", names[view]


def _view(name: str, dataset: str, query: int | None, outputs: int, *, attributes: bool) -> int | str:
    """How the logits of a classifier answer the yes-or-no question ``query``."""
    if outputs == 1:
        return 0
    if not attributes:
        if outputs != 2:
            raise WeightsError(f"{name}: has {outputs} exclusive classes, but --dataset {dataset} asks yes or no")
        return "difference"
    if query is None or not 0 <= query < outputs:
        raise WeightsError(f"--label_query {query}: the classifier answers {_listed(list(range(outputs)))}")
    return query


def is_ours(tree: dict) -> bool:
    return tree.get("format") == FORMAT


def open_ours(tree: dict, name: str) -> tuple[nn.Module, dict]:
    """Network and header (arch, class_names, mean, std, image_size, attributes) of a loaded file of ours."""
    _check_ours(tree, name)
    state = state_dict(tree, name=name)
    arch, outputs = tree["arch"], len(tree["class_names"])
    try:
        network = _build_loaded(arch, outputs, state, name, f"a {arch} with {outputs} outputs, as it says")
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"{name}: {error}") from None
    header = {key: tree[key] for key in ("arch", "class_names", "mean", "std", "image_size")}
    return network, header | {"attributes": tree.get("attributes", False)}


def _check_ours(tree: dict, name: str) -> None:
    """The header of a file of ours, field by field: it may come from anyone."""

    def numbers(values, low) -> bool:
        good = isinstance(values, list) and len(values) == 3
        return good and all(isinstance(v, float | int) and low < v < 1e6 for v in values)

    names, size, version = tree.get("class_names"), tree.get("image_size"), tree.get("version")
    named = isinstance(names, list) and all(isinstance(n, str) and n.isprintable() for n in names)
    checks = {
        "version": type(version) is int and version == VERSION,
        "arch": isinstance(tree.get("arch"), str),
        "class_names": named and len(names) > 0,
        "mean": numbers(tree.get("mean"), -1e6),
        "std": numbers(tree.get("std"), 0),
        "image_size": type(size) is int and 1 <= size <= 65536,
        "attributes": isinstance(tree.get("attributes", False), bool),
    }
    for field, good in checks.items():
        if not good:
            value = tree.get(field)
            said = f"{value!r:.60}" if isinstance(value, str | float | bool) else f"a {type(value).__name__}"
            raise WeightsError(f"{name}: an ACE classifier whose {field} is {said}, which this version cannot use")
