"""Classifiers of other makers, as ``--classifier`` names them: each becomes a network from pictures to logits.

Some of these forms hold code, and opening them runs it: that is the user's choice, never a stored configuration's.
"""

import importlib
import importlib.util
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import did_you_mean
from ace_counterfactuals.models.architectures import package, timm_name
from ace_counterfactuals.models.config import ClassifierConfig
from ace_counterfactuals.models.loading import WeightsError, load_into, load_state, read_object, without_prefix
from ace_counterfactuals.models.trial import FAILURES, trial

KINDS = ("torchvision", "timm", "hf")  # before a colon that comes before no function
PLAIN = ((0.0,), (1.0,))  # pictures in [0, 1] as they are


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is said of a classifier beside its file.

    name: torchvision's architecture, timm:NAME, hf, FILE.py:FUNCTION or MODULE:FUNCTION; '' goes by the file.
    args: keyword arguments of that function.  mean, std: of the network's input, a value or one a channel.
    size: side of the pictures that the network wants, 0 for those of any size.  channels: 1 or 3, 0 is found by trying.
    image_size: side of the pictures that are explained.
    """

    name: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    size: int = 0
    channels: int = 0
    image_size: int = 224


@dataclass(frozen=True)
class Foreign:
    """A network as it was opened, (N, C, H, W) normalised -> an answer of any kind, and what its form says of it."""

    network: nn.Module
    mean: Sequence[float] = PLAIN[0]
    std: Sequence[float] = PLAIN[1]
    size: int = 0
    class_names: tuple[str, ...] | None = None


class Form(NamedTuple):
    """takes: whether a name is of this form; open: (spec, file) -> the network.  code: whether there is code in it."""

    takes: Callable[[str], bool]
    open: Callable[[Spec, str], Foreign]
    code: bool


def filled(network: nn.Module, path: str, what: str) -> nn.Module:
    """The network with the weights of the file, if one is given."""
    if path:
        names = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
        load_into(network, without_prefix(load_state(path), names), path=path, what=what)
    return network


def open_timm(spec: Spec, path: str) -> Foreign:
    """timm's network of this name: with the weights of the file, or else with its published ones, fetched by timm."""
    timm, name = package("timm"), timm_name(spec.name)
    about = timm.models.get_pretrained_cfg(name)
    if path:
        head, first = f"{about.classifier}.weight", f"{about.first_conv}.weight"
        state = load_state(path)
        found = next((key for key in state if key == head or key.endswith(f".{head}")), None)
        if found is None:
            raise WeightsError(f"{path}: has no {head}, so it is not timm's {name}")
        entry = state.get(found.removesuffix(head) + first)
        sizes = {"num_classes": len(state[found]), "in_chans": 3 if entry is None else entry.shape[1]}
        network = filled(timm.create_model(name, **sizes), path, f"timm's {name}")
    else:
        network = timm.create_model(name, pretrained=True)
    return Foreign(network, about.mean, about.std, about.input_size[-1] if about.fixed_input_size else 0)


class _Logits(nn.Module):
    """Of a network of transformers."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixel_values=pixels).logits


def open_hf(spec: Spec, path: str) -> Foreign:
    """A folder of transformers' image classification, with its processor's size and normalisation; its code is not
    run."""
    transformers, folder = package("transformers"), Path(path)
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "no such folder"
        raise ValueError(f"{path}: {kind}; wanted the folder that save_pretrained wrote")
    try:
        network = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: is no folder of transformers' image classification ({reason:.200})") from None
    file = folder / "preprocessor_config.json"
    said = read_object(file) if file.is_file() else {}
    size = said.get("crop_size") or said.get("size") or {}
    side = size if isinstance(size, int) else size.get("height", size.get("shortest_edge", 0))
    mean, std = PLAIN
    if said.get("do_normalize", True) and "image_mean" in said:
        mean, std = said["image_mean"], said["image_std"]
    names = tuple(network.config.id2label[i] for i in range(len(network.config.id2label)))
    known = names if any(name != f"LABEL_{i}" for i, name in enumerate(names)) else None
    return Foreign(_Logits(network), mean, std, side, known)


def open_code(spec: Spec, path: str) -> Foreign:
    """What a function of the user's returns, with the weights of the file if one is given."""
    (where, _, function), module = spec.name.rpartition(":"), None
    try:
        module = _module(where)
        network = getattr(module, function)(**spec.args)
    except Exception as error:  # it is the user's code, which may raise anything
        near = ""
        if module is None and not Path(where).exists():
            near = did_you_mean(Path(where).name, [*KINDS, *(file.name for file in Path(where).parent.glob("*.py"))])
        elif module is not None and not hasattr(module, function):
            near = did_you_mean(function, vars(module))
        raise ValueError(f"{spec.name}: {type(error).__name__}: {' '.join(str(error).split())}{near}") from None
    if not isinstance(network, nn.Module):
        raise ValueError(f"{spec.name}: returned {type(network).__name__}, wanted a torch.nn.Module")
    names = getattr(network, "class_names", None)
    return Foreign(filled(network, path, f"the network of {spec.name}"), class_names=tuple(names) if names else None)


def _module(where: str) -> ModuleType:
    """A file, or a module as a program in this folder would import it."""
    if not where.endswith(".py"):
        sys.path.insert(0, "")
        try:
            return importlib.import_module(where)
        finally:
            sys.path.remove("")
    found = importlib.util.spec_from_file_location(Path(where).stem, where)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules.setdefault(found.name, module)  # for classes that look for their own module
    found.loader.exec_module(module)
    return module


def open_torchscript(spec: Spec, path: str) -> Foreign:
    """A program of ``torch.jit``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        return Foreign(torch.jit.load(path, map_location="cpu"))


def open_exported(spec: Spec, path: str) -> Foreign:
    """A program of ``torch.export``."""
    return Foreign(torch.export.load(path).module())


def open_onnx(spec: Spec, path: str) -> Foreign:
    """An ONNX model, made a torch network operator by operator."""
    converter = package("onnx2fx")
    try:
        return Foreign(converter.convert(path))
    except Exception as error:  # its own, protobuf's, torch's
        advice = "export it with other operators, or by torch.export or torch.jit.trace"
        raise ValueError(f"{path}: ONNX that cannot be converted: {' '.join(str(error).split())}; {advice}") from None


FORMS = {
    "timm": Form(lambda name: name.startswith("timm:"), open_timm, code=False),
    "transformers": Form(lambda name: name == "hf", open_hf, code=False),
    "a function": Form(lambda name: ":" in name, open_code, code=True),
    "TorchScript": Form(lambda name: name == "torchscript", open_torchscript, code=True),
    "torch.export": Form(lambda name: name == "pt2", open_exported, code=True),
    "ONNX": Form(lambda name: name == "onnx", open_onnx, code=True),
}
"""The first that takes a name, or else what the file is, opens it; others are files of weights alone."""


def form_of(name: str, path: str) -> Form | None:
    """The form that a classifier has; None: a file of weights of a network that is known here."""
    told = name or program_of(path)
    return next((form for form in FORMS.values() if told and form.takes(told)), None)


def said_of(flags: ClassifierConfig, image_size: int) -> Spec | str:
    """What the flags say of the classifier beside its file, as ``load_classifier`` takes it; '' if nothing."""
    mean, std = flags.numbers("classifier_mean"), flags.numbers("classifier_std")
    name, size, channels = flags.classifier or flags.classifier_arch, flags.classifier_size, flags.classifier_channels
    if not (mean or std or size or channels) and form_of(name, flags.classifier_path) is None:
        return name
    return Spec(
        name=name, args=flags.arguments, mean=mean, std=std, size=size, channels=channels, image_size=image_size
    )


def runs_code(name: str, path: str) -> bool:
    """Whether to open a classifier is to run code that came with it."""
    form = form_of(name, path)
    return form is not None and form.code


def program_of(path: str) -> str:
    """'torchscript', 'pt2' or 'onnx', by what the file holds; '' for other files."""
    if not Path(path).is_file():
        return ""
    with open(path, "rb") as file:
        head = file.read(2)
    if head != b"PK":
        return "onnx" if head[:1] == b"\x08" else ""  # the field of ONNX's version
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return ""
    inside = [name.partition("/")[2] for name in names]
    if "archive_format" in inside or "serialized_exported_program.json" in names:  # the latter by torch 2.6
        return "pt2"
    return "torchscript" if "constants.pkl" in inside else ""


def logits_of(found: Tensor, outputs: str) -> Tensor:
    """Of an answer of any shape.  outputs: what it is, as ``kind_of`` says."""
    if outputs == "sigmoid":
        return torch.logit(found, eps=1e-6)
    return found.clamp_min(1e-12).log() if outputs == "softmax" else found


class Answers(nn.Module):
    """A network of any kind as (N, C, H, W) normalised -> logits (N, K).

    size: to which pictures are resized, with their gradient, 0 for none.  outputs: what the network gives, of which
    the logits are taken.  alone: it takes one picture at a time.
    """

    def __init__(self, network: nn.Module, size: int = 0):
        super().__init__()
        self.network, self.size, self.outputs, self.alone = network, size, "logits", False

    def train(self, mode: bool = True) -> "Answers":
        """Never in training mode, which some programs do not know."""
        return self

    def raw(self, pixels: Tensor) -> Tensor:
        """The network's own answer, (N, K)."""
        if self.size and pixels.shape[2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        found = torch.cat([self.network(one) for one in pixels.split(1)]) if self.alone else self.network(pixels)
        if not isinstance(found, Tensor) or found.numel() % len(pixels) or found.numel() > 10**5 * len(pixels):
            kind = f"a tensor of {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"answers with {kind}, wanted logits (N, K)")
        return found.reshape(len(pixels), -1)

    def forward(self, pixels: Tensor) -> Tensor:
        return logits_of(self.raw(pixels), self.outputs)


def tried(foreign: Foreign, spec: Spec, what: str) -> tuple[Answers, int, int]:
    """The network with what a trial on two pictures of noise tells of it: its channels, and its number of outputs.

    what: the classifier in messages.  Raises ValueError for one that fails, or that cannot be explained.
    """
    if not isinstance(foreign.network, torch.fx.GraphModule):  # which has no such mode
        foreign.network.eval()
    for parameter in foreign.network.parameters():
        parameter.requires_grad_(False)
    answers = Answers(foreign.network, spec.size or foreign.size)
    found, channels = _first_answer(answers, foreign, spec, what)
    answers.outputs = kind_of(found, what)
    return answers, channels, found.shape[1]


def _first_answer(answers: Answers, foreign: Foreign, spec: Spec, what: str) -> tuple[Tensor, int]:
    """The network's answer to noise, with its graph, and the channels that it was given."""
    side, said = spec.size or foreign.size or spec.image_size, ""
    for channels, answers.alone in product([spec.channels] if spec.channels else [3, 1], (False, True)):
        pixels = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))
        try:
            found = trial(answers.raw, pixels)
        except FAILURES as error:
            said = said or " ".join(str(error).split())[-200:]  # of TorchScript's the end
            continue
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        return found, channels
    advice = "give classifier_size or classifier_channels if it wants others"
    raise ValueError(f"{what}: cannot be asked about pictures of {side} x {side} ({said}); {advice}")


def kind_of(found: Tensor, what: str) -> str:
    """'logits', or 'sigmoid' or 'softmax', which is said: by the last operation of an answer that computes."""
    node = found.grad_fn
    while node is not None:
        name = node.name()
        if name.startswith(("Sigmoid", "Softmax")):
            notice(f"{what}: gives probabilities ({name[:7].lower()}); their logits are taken")
            return name[:7].lower()
        if not name.startswith(("View", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "Clone", "Cat")):
            break
        node = node.next_functions[0][0]
    return "logits"


def normalisation(foreign: Foreign, spec: Spec, channels: int) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel, as given or else as the form says."""
    mean = [float(value) for value in spec.mean or foreign.mean]
    std = [float(value) for value in spec.std or foreign.std]
    if channels == 1 and not spec.mean and not spec.std:  # those of grey are the means of those of the colours
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    mean, std = (values * channels if len(values) == 1 else values for values in (mean, std))
    if not len(mean) == len(std) == channels:
        raise ValueError(f"mean {mean} and std {std}: wanted {channels} numbers each, one a channel")
    return mean, std
