"""Explanations as other packages ask for them: Captum's ``attribute`` and ``perturb``, Quantus' ``explain_func``.

Neither package is imported.  Their inputs are what the model takes, which may be normalised; ``mean`` and ``std`` say
how, so that pictures in [0, 1] can be made of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ace_counterfactuals.core.api.ace import ACE

CLAMPED = 0.01  # of an input's unit: half precision


class Counterfactuals:
    """ACE with Captum's methods: tensors of the inputs' shape, type and device.

    forward_func: inputs (N, C, H, W) -> logits, C 1 or 3.  denoiser, preset and settings: as ``ACE`` takes them.
    mean, std: of the inputs' normalisation, one number or one a channel: inputs are (picture - mean) / std.
    """

    def __init__(
        self,
        forward_func: Callable[[Tensor], Tensor],
        denoiser: Any,
        preset: str | None = None,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        **settings,
    ):
        self.model = _OfPictures(forward_func, mean, std)
        self.ace = ACE(self.model, denoiser, preset, **settings)

    def perturb(self, inputs: Tensor, target: int | str | Sequence[int] | Tensor | None = None) -> Tensor:
        """The counterfactuals, normalised as the inputs.

        target: the class to reach, one or (N,); None is any other than the predicted one.  Raises ValueError as
        ``ACE.explain`` does, and for inputs that are no pictures in [0, 1] before their normalisation.
        """
        images = (inputs.detach() * self.model.std.to(inputs) + self.model.mean.to(inputs)).clamp(0, 1)
        if (self.model.normalised(images) - inputs).abs().max() > CLAMPED:
            raise ValueError(
                "inputs: are no pictures in [0, 1] once mean and std are taken back; give those of the inputs"
            )
        found = torch.empty_like(images)
        for one, rows in _rows_of(target, len(inputs)).items():
            found[rows] = self.ace.explain(images[rows], one, indices=rows).counterfactual.to(found)
        return self.model.normalised(found)

    def attribute(self, inputs: Tensor, target: int | str | Sequence[int] | Tensor | None = None) -> Tensor:
        """What would have to change: the counterfactuals minus the inputs.  target: see ``perturb``."""
        return self.perturb(inputs, target) - inputs.detach()


class _OfPictures(nn.Module):
    """A model of normalised inputs as one of pictures in [0, 1]."""

    def __init__(self, ask: Callable[[Tensor], Tensor], mean: float | Sequence[float], std: float | Sequence[float]):
        super().__init__()
        self.ask = ask
        self.mean, self.std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (mean, std))

    def normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean.to(images)) / self.std.to(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.ask(self.normalised(images))


def _rows_of(target: Any, n: int) -> dict[Any, list[int]]:
    """Which of the N inputs are to reach which class."""
    one = target is None or isinstance(target, int | str)
    each = [target] if one else torch.as_tensor(target).flatten().tolist()
    each = each * n if len(each) == 1 else each
    if len(each) != n:
        raise ValueError(f"target: {len(each)} classes for {n} inputs; wanted one, or one for each")
    return {wanted: [i for i, other in enumerate(each) if other == wanted] for wanted in dict.fromkeys(each)}


def quantus_explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **kwargs: Any) -> np.ndarray:
    """Quantus' ``explain_func``: how much each value would have to change for the model to decide otherwise.

    inputs: (N, C, H, W), as the model takes them.  targets: the classes that Quantus asks about, which are taken to be
    the predicted ones: these are left for any other class, or for ``target``.
    kwargs: what ``Counterfactuals`` takes, and ``target``; Quantus passes on its ``explain_func_kwargs``.
    Returns the size of the changes, (N, C, H, W), >= 0.
    """
    kwargs.pop("device", None)  # Quantus adds its own; the networks tell where to compute
    target = kwargs.pop("target", None)
    found = Counterfactuals(model, **kwargs).attribute(torch.as_tensor(np.asarray(inputs)), target)
    return found.abs().cpu().numpy()
