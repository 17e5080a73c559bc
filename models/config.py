"""Settings of the networks: files of weights, and what the classifier is."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ace_counterfactuals.core.base.settings import FlagError, flag, is_path

FORMS = "torchvision:NAME, timm:NAME, hf:FOLDER, FILE.py:FUNCTION or MODULE:FUNCTION"


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The classifier that is explained.  What ``classifier`` says is put into other flags where these can say it."""

    classifier: str = flag(
        "",
        f"its file (weights, ONNX, TorchScript, torch.export), or {FORMS}, which runs that function's code",
        whole=True,
    )
    classifier_path: str = flag(
        "", "weights of the classifier: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_arch: str = flag("", "torchvision's name of the classifier, where its file does not tell")
    classifier_args: str = flag("", "keyword arguments of FUNCTION, as JSON: '{\"width\": 64}'")
    classifier_mean: str = flag("", "mean of its input, a number or one a channel: 0.5,0.5,0.5; '' is its form's")
    classifier_std: str = flag("", "deviation of its input, likewise")
    classifier_size: int = flag(0, "side that pictures are resized to for it; 0 is its form's, or none", low=0)
    classifier_channels: int = flag(0, "channels that it takes, 1 or 3; 0 is found by trying", low=0, high=3)

    def __post_init__(self) -> None:
        if self.classifier.endswith(".py"):
            raise FlagError("classifier", f"{self.classifier}: wanted FILE.py:FUNCTION, which returns the network")
        kind, _, rest = self.classifier.partition(":")
        name, put = self.classifier, {}
        if kind == "torchvision":
            name, put = "", {"classifier_arch": rest}
        elif kind == "hf" and rest:
            name, put = "hf", {"classifier_path": rest}
        elif name and name != "hf" and (not rest or rest.startswith("//")):
            name, put = "", {"classifier_path": name}
        for field, value in put.items():
            if getattr(self, field) not in ("", value):
                raise FlagError("classifier", f"{self.classifier}: is not {field} {getattr(self, field)}; give one")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "classifier", name)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Of classifier_mean or classifier_std.  Raises FlagError."""
        text = getattr(self, name)
        try:
            found = tuple(float(part) for part in text.split(",")) if text else ()
        except ValueError:
            raise FlagError(name, f"{text}: wanted numbers with commas between them, such as 0.5,0.5,0.5") from None
        if (
            len(found) not in (0, 1, 3)
            or not all(map(math.isfinite, found))
            or (name.endswith("std") and min(found, default=1) <= 0)
        ):
            raise FlagError(name, f"{text}: wanted one number or three, and those of classifier_std above 0")
        return found

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Of the function that makes the classifier.  Raises FlagError."""
        try:
            found = json.loads(self.classifier_args or "{}")
        except ValueError as error:
            raise FlagError("classifier_args", f"{self.classifier_args}: is not JSON ({error})") from None
        if not isinstance(found, dict):
            raise FlagError("classifier_args", f'{self.classifier_args}: wanted an object, such as {{"width": 64}}')
        return found


@dataclass(frozen=True, kw_only=True)
class WeightsConfig(ClassifierConfig):
    """Files of the networks of a run."""

    model_path: str = flag(
        "",
        "weights of the diffusion model: a path, gs://, az:// or https://, a folder of train_diffusion.py or "
        "diffusers, FILE.py:FUNCTION or MODULE:FUNCTION, which runs that function's code",
        path=is_path,
        result=False,
    )
