"""The classifiers that are explained: each takes images in [0, 1] and normalises them itself."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ace_counterfactuals.models.architectures import build_loaded, ends, plain_name, torchvision_near
from ace_counterfactuals.models.loading import (
    WeightsError,
    describe,
    fetched,
    load_weights,
    save_weights,
    state_dict,
    without_prefix,
)
from ace_counterfactuals.models.specs import Answers, Foreign, Spec, form_of, normalisation, tried

FORMAT, VERSION = "ace-classifier", 1
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"  # what `pretrained=True` was


class Classifier(nn.Module):
    """Images (N, C, H, W) in [0, 1] -> logits: (N,) where ``binary``, else (N, num_outputs).

    C is 1 or 3: a network of 3 ``channels`` is shown grey images as three equal ones, and one of 1 takes three where
    they are equal.
    """

    mean: Tensor
    std: Tensor

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
        self.made_of: dict[str, Any] = {}  # the settings of ``load_classifier`` that main.py has, by its names
        for name, values in zip(("mean", "std"), normalisation, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.channels = len(normalisation[0])

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] > self.channels:
            if not (images == images[:, :1]).all():
                raise ValueError("the classifier takes grey pictures, and these are in colour")
            images = images[:, :1]
        logits = self.network((images - self.mean) / self.std)
        if self.view == "all":
            return logits
        return logits[:, 1] - logits[:, 0] if self.view == "difference" else logits[:, self.view]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file of ours says of its network.  Raises ValueError for a field that is not of its kind.

    arch: as ``build_classifier`` takes it.  class_names: of the outputs.  mean, std: of each channel of the input.
    image_size: side of the pictures that it was trained on.  attributes: its labels are independent.
    """

    arch: str
    class_names: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    image_size: int
    attributes: bool = False

    def __post_init__(self):
        """Field by field: a file may come from anyone."""

        def numbers(values, low: float) -> bool:
            good = isinstance(values, list | tuple) and len(values) in (1, 3)
            return good and all(isinstance(value, float | int) and low < value < 1e6 for value in values)

        mean, std = numbers(self.mean, -1e6), numbers(self.std, 0)

        names = self.class_names
        named = isinstance(names, list | tuple) and all(isinstance(n, str) and n.isprintable() for n in names)
        sound = {
            "arch": isinstance(self.arch, str),
            "class_names": named and len(names) > 0,
            "mean": mean,
            "std": std and (not mean or len(self.std) == len(self.mean)),
            "image_size": type(self.image_size) is int and 1 <= self.image_size <= 65536,
            "attributes": isinstance(self.attributes, bool),
        }
        for name, good in sound.items():
            if not good:
                raise ValueError(f"an ACE classifier whose {name} is {getattr(self, name)!r:.60}")


def save_classifier(path, network: nn.Module, **header) -> None:
    """Write a file of ours: all that is needed to use the network again.  header: the fields of ``Header``."""
    said = asdict(Header(**header))
    said |= {"class_names": list(said["class_names"])} | {key: [float(v) for v in said[key]] for key in ("mean", "std")}
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    save_weights(path, {"format": FORMAT, "version": VERSION, **said, "state_dict": state})


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a classifier is wanted for, as ``load_classifier`` takes it."""

    path: str
    binary: bool = False
    query: int | None = None
    heads: Mapping[int, int] = field(default_factory=dict)
    arch: str = ""
    num_classes: int | None = None
    spec: Spec = Spec()

    def refuse(self, reason: str) -> WeightsError:
        """The error to raise, "path: reason"."""
        return WeightsError(f"{self.path}: {reason}")


class Format(NamedTuple):
    """recognises: whether the content of a file is of this format; build: the classifier of such a file."""

    recognises: Callable[[dict, Wanted], bool]
    build: Callable[[dict, Wanted], Classifier]


def load_classifier(
    path="",
    *,
    binary: bool = False,
    query: int | None = None,
    arch: str | Spec = "",
    heads: Mapping[int, int] | None = None,
    num_classes: int | None = None,
) -> Classifier:
    """The classifier in a file, frozen and in eval mode, on the CPU: images (N, 3, H, W) in [0, 1] -> logits.

    Formats: files of ``save_classifier`` (train_classifier.py), which say all that is needed; a state dict of
    torchvision's network ``arch``; with ``heads``, the DenseNet-121 that DiVE and STEEX publish. A user's format is
    one more entry of ``FORMATS``.

    path: a file or an address; '' is the published weights of torchvision's or timm's ``arch``, fetched once.
    binary: wanted is an answer of yes or no to the attribute ``query``: one logit (N,), positive for yes; without it
    the logits are (N, classes), but for a file of independent attributes, which answers ``query`` in any case.
    arch: torchvision's name, or what is said of a network of another maker.
    heads: attribute -> output of the DenseNet-121.  num_classes: what a file without class names must have.
    Raises ValueError, "path: reason", for a file that cannot be read or is another network.
    """
    spec = Spec(name=arch) if isinstance(arch, str) else arch
    path = str(path or "")
    form = form_of(spec.name, path)
    if not path and form is None:
        path = str(published(spec.name))
    name = spec.name if form is None else ""
    wanted = Wanted(
        path=path, binary=binary, query=query, heads=heads or {}, arch=name, num_classes=num_classes, spec=spec
    )
    if form is None or (path and spec.name.startswith("timm:")):
        if not spec.name and not Path(path).exists() and (near := torchvision_near(path)):
            raise WeightsError(f"{path}: no such file; did you mean {near}?")
        tree = load_weights(path)
        if form is None or is_ours(tree):
            return read_classifier(tree, wanted)
    return _foreign(form.open(spec, path), wanted)


def published(arch: str) -> Path:
    """torchvision's weights of an architecture, fetched once.  Raises ValueError."""
    if arch == "resnet50":
        return fetched(RESNET50_URL)
    import torchvision

    if not arch:
        raise WeightsError("not given; wanted the file of the classifier to explain")
    ends(arch)  # which refuses a name that is none
    return fetched(torchvision.models.get_model_weights(arch).DEFAULT.url)


def _foreign(foreign: Foreign, wanted: Wanted) -> Classifier:
    """A network of another maker, after a trial."""
    spec = wanted.spec
    what = spec.name if ":" in spec.name else wanted.path
    network, channels, outputs = tried(foreign, spec, what)
    if wanted.num_classes not in (None, outputs):
        raise wanted.refuse(f"has {outputs} outputs, wanted {wanted.num_classes}, one a class")
    attributes = outputs > 1 and (network.outputs == "sigmoid" or (wanted.binary and outputs != 2))
    asked = attributes or wanted.binary or outputs == 1
    view = _view(wanted, wanted.query, outputs, attributes=attributes) if asked else "all"
    names = foreign.class_names if foreign.class_names and len(foreign.class_names) == outputs else None
    if names and isinstance(view, int):
        names = (f"not {names[view]}", names[view])
    classifier = Classifier(
        network, normalisation(foreign, spec, channels), num_outputs=outputs, view=view, class_names=names
    )
    return _finished(classifier, wanted)


def _finished(classifier: Classifier, wanted: Wanted) -> Classifier:
    """Frozen, with the settings that open it again."""
    spec = wanted.spec
    classifier.made_of = {"classifier_path": wanted.path, "classifier_arch": wanted.arch}
    if form_of(spec.name, wanted.path):
        mean, std = (",".join(map(str, values)) for values in (spec.mean, spec.std))
        about: dict[str, Any] = {"args": json.dumps(spec.args) if spec.args else "", "mean": mean, "std": std}
        about |= {"size": spec.size, "channels": spec.channels}
        classifier.made_of |= {"classifier": spec.name} | {f"classifier_{key}": value for key, value in about.items()}
    return classifier.eval().requires_grad_(False)


def read_classifier(tree: dict, wanted: Wanted) -> Classifier:
    """The classifier in a loaded file, as ``load_classifier`` returns it."""
    for recognises, build in FORMATS:
        if recognises(tree, wanted):
            return _finished(build(tree, wanted), wanted)
    found = describe(state_dict(tree, name=wanted.path))
    advice = "wanted a file of train_classifier.py, or the name of the architecture: classifier_arch resnet50, or what "
    advice += "builds the network: classifier my_net.py:build"
    raise wanted.refuse(f"is {found}; {advice}")


def _rows(weight: Tensor) -> int:
    return weight.shape[0] if weight.dim() else 0


def _torchvision(tree: dict, wanted: Wanted) -> Classifier:
    """torchvision's network ``wanted.arch``, normalised as for ImageNet."""
    arch, state = wanted.arch, state_dict(tree, name=wanted.path)
    try:
        first, last = ends(arch)
    except ValueError as error:
        raise wanted.refuse(str(error)) from None
    state = without_prefix(state, {first, last})
    if last not in state:
        raise wanted.refuse(f"is {describe(state)}, not torchvision's {arch}; see classifier_arch")
    outputs = _rows(state[last])
    if wanted.num_classes not in (None, outputs):
        raise wanted.refuse(f"has {outputs} outputs, wanted {wanted.num_classes}, one a class")
    if arch in ("googlenet", "inception_v3"):
        state = {k: v for k, v in state.items() if not k.lower().startswith("aux")}
    if arch.startswith("densenet"):  # torchvision's own files still have names of before 2018
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", k): v for k, v in state.items()}
    query = wanted.query
    query = wanted.heads.get(query) if query is not None and len(wanted.heads) == outputs else query
    view = _view(wanted, query, outputs, attributes=outputs != 2) if wanted.binary else "all"
    channels = 1 if first in state and state[first].shape[1:2] == (1,) else 3
    network = build_loaded(arch, outputs, channels, state, path=wanted.path, what=f"torchvision's {arch}")
    if wanted.spec.size:
        network = Answers(network, wanted.spec.size)
    input_ = normalisation(Foreign(network, *IMAGENET), wanted.spec, channels)
    return Classifier(network, input_, num_outputs=outputs, view=view)


def _densenet(tree: dict, wanted: Wanted) -> Classifier:
    """The DenseNet-121 of DiVE and STEEX, normalised by 0.5."""
    heads, state = wanted.heads, state_dict(tree, name=wanted.path)
    weight = state.get("classifier.weight")
    if "feat_extract.feat_extract.features.conv0.weight" not in state or weight is None:
        advice = "for another network name it: classifier_arch resnet50"
        raise wanted.refuse(f"is {describe(state)}, not the DenseNet-121 of this data set; {advice}")
    if _rows(weight) != len(heads):
        raise wanted.refuse(f"has {_rows(weight)} outputs, but the DenseNet-121 of this data set has {len(heads)}")
    if wanted.query is None or wanted.query not in heads:
        raise wanted.refuse(f"does not answer query {wanted.query}, but {_listed(list(heads))}")
    state = {key.removeprefix("feat_extract.feat_extract."): value for key, value in state.items()}
    network = build_loaded("densenet121", len(heads), 3, state, path=wanted.path, what="a DenseNet-121")
    return Classifier(network, HALF, num_outputs=len(heads), view=heads[wanted.query])


def _listed(values: list[int]) -> str:
    return f"0 to {len(values) - 1}" if values == list(range(len(values))) else ", ".join(map(str, values))


def _ours(tree: dict, wanted: Wanted) -> Classifier:
    """A file of ``save_classifier``, normalised as it says."""
    network, header = open_ours(tree, wanted.path)
    named = plain_name(wanted.spec.name)
    if named not in ("", header.arch):
        raise wanted.refuse(f"is a {header.arch}, as it says, and no {named}; leave the name out")
    outputs, attributes = len(header.class_names), header.attributes
    asked = attributes or wanted.binary or outputs == 1
    view = _view(wanted, wanted.query, outputs, attributes=attributes) if asked else "all"
    return classifier_of(network, header, view)


def _view(wanted: Wanted, query: int | None, outputs: int, *, attributes: bool) -> int | str:
    """How the logits of a classifier answer the yes-or-no question ``query``."""
    if outputs == 1:
        return 0
    if not attributes:
        if outputs != 2:
            raise wanted.refuse(f"has {outputs} exclusive classes, but the data set asks yes or no")
        return "difference"
    if query is None or not 0 <= query < outputs:
        raise wanted.refuse(f"does not answer query {query}, but {_listed(list(range(outputs)))}")
    return query


FORMATS = [
    Format(lambda tree, wanted: is_ours(tree), _ours),
    Format(lambda tree, wanted: bool(wanted.heads) and not wanted.arch, _densenet),
    Format(lambda tree, wanted: bool(wanted.arch), _torchvision),
]
"""The first that recognises a file reads it: another one is inserted at the front."""


def is_ours(tree: dict) -> bool:
    """Whether a loaded file is one of ``save_classifier``."""
    return tree.get("format") == FORMAT


def open_ours(tree: dict, name: str) -> tuple[nn.Module, Header]:
    """Network and header of a loaded file of ours.  Raises ValueError, "name: reason"."""
    try:
        if tree.get("version") != VERSION:
            raise ValueError(f"an ACE classifier whose version is {tree.get('version')!r:.60}, not {VERSION}")
        header = Header(**{item.name: tree[item.name] for item in fields(Header) if item.name in tree})
        what = f"a {header.arch} with {len(header.class_names)} outputs, as it says"
        shape = header.arch, len(header.class_names), len(header.mean)
        return build_loaded(*shape, state_dict(tree, name=name), path=name, what=what), header
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{name}: {error}") from None


def classifier_of(network: nn.Module, header: Header, view: int | str = "all") -> Classifier:
    """The network of a file of ours, which takes images and answers as ``view`` says."""
    names, outputs = tuple(header.class_names), len(header.class_names)
    if isinstance(view, int):
        names = (f"not {names[view]}", names[view])
    about: dict[str, Any] = {"class_names": names, "image_size": header.image_size}
    return Classifier(network, (header.mean, header.std), num_outputs=outputs, view=view, **about)
