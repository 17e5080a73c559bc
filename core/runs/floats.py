"""Pre-explanations as float16 files, from which a refinement finds the mask that the run found."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.method.filtering import change_mask

ROUNDS = 8


def to_stored(image: Tensor, pre_explanation: Tensor, inpaint: float) -> Tensor:
    """The pre-explanation in float16, every pixel's change on its own side of ``inpaint`` when it is read again.

    image, pre_explanation: (3, H, W) in [0, 1].  Rounding to the nearest moves a few changes across the threshold,
    those that lie on it above all, as many do after whole steps of 1/255; these are moved back by units in the last
    place, an eighth of a grey level each.  Where that does not help, float32 is returned.
    """
    below = change_mask(image[None], pre_explanation[None])[0] < inpaint
    towards = (image - pre_explanation).sign()
    half = pre_explanation.half()
    for _ in range(ROUNDS):
        now = change_mask(image[None], from_stored(half)[None])[0] < inpaint
        if torch.equal(now, below):
            return half
        direction = torch.where(now == below, 0, torch.where(below, towards, -towards))
        half = torch.where(direction == 0, half, neighbour(half, direction))
    return pre_explanation


def neighbour(half: Tensor, direction: Tensor) -> Tensor:
    """The next float16 in [0, 1] above where ``direction`` is 1, below where it is -1."""
    bits = half.view(torch.int16) + direction.to(torch.int16)  # of positive numbers, the bits have the same order
    return bits.clamp(min=0).view(torch.float16).clamp(max=1)


def from_stored(stored: Tensor) -> Tensor:
    """To float32; a float16 that a grey level rounds to is that level, so that what did not change has not."""
    if stored.dtype == torch.float32:
        return stored
    level = (stored.float() * 255).round() / 255
    return torch.where(level.half() == stored, level, stored.float())


def to_npy(stored: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, stored.cpu().numpy())
    return buffer.getvalue()


def read_stored(path: Path) -> Tensor:
    """(3, H, W) float32 in [0, 1].  Raises UnreadableImage for anything that ``to_npy`` does not write."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableImage(path, " ".join(str(error).split())) from None
    known = values.dtype in (np.float16, np.float32) and values.ndim == 3 and len(values) == 3
    if not known or not (values.min() >= 0 and values.max() <= 1):
        raise UnreadableImage(path, f"wanted float16 (3, H, W) in [0, 1], found {values.dtype} {values.shape}")
    return from_stored(torch.from_numpy(values))
