"""Pictures that are measurements: numbers of any depth, which a span (LOW, HIGH) maps to [0, 1], and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ace_counterfactuals.core.base.reading import read_npy
from ace_counterfactuals.core.data.pictures import SAID, Content, UnreadableImage, check_size, decode, opened

LARGEST = 2**29  # bytes of a file
Span = tuple[float, float]


def measured(path: Path, span: Span, **how: Any) -> list[Image.Image]:
    """The picture as numbers: an image of mode F a channel, one of a grey picture, else three.

    What a .npy file or an image holds is taken as it is, LOW becoming 0 and HIGH 1; what lies beyond them is clipped.
    how: as ``decode`` takes it.  Raises UnreadableImage.
    """
    try:
        values, said = _numbers(path, **how)
        check_size(values.shape[2], values.shape[1])
        low, high = span
        with np.errstate(all="ignore"):  # of what is refused next
            values = (values.astype(np.float64) - low) / (high - low)
        if not np.isfinite(values).all():
            raise ValueError("holds NaN or infinity")
    except UnreadableImage:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, str(error).removeprefix(f"{path}: ")) from None
    if values.min() < 0 or values.max() > 1:
        said = "what lies outside of image_range is clipped"
    grey = all(np.array_equal(values[0], other) for other in values[1:])
    layers = [Image.fromarray(layer) for layer in values[: 1 if grey else 3].clip(0, 1).astype(np.float32)]
    layers[0].info[SAID] = said
    return layers


def tensor_of(layers: Sequence[Image.Image]) -> Tensor:
    """(C, H, W) float32 in [0, 1]; resizing may have overshot."""
    return torch.stack([torch.from_numpy(np.array(layer)) for layer in layers]).clamp(0, 1)


def as_measured(image: Tensor, span: Span) -> np.ndarray:
    """(C, H, W) in [0, 1] -> float32 between LOW and HIGH, (H, W) of a grey picture, else (H, W, 3)."""
    low, high = span
    values = (low + image.double().cpu() * (high - low)).float().numpy()
    return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


def _numbers(
    path: Path, *, upright: bool = False, content: Content | None = None, **how: Any
) -> tuple[np.ndarray, str]:
    """(1 or 3, H, W) as stored, and what is to be said of it."""
    if path.suffix.lower() == ".npy":
        return _channels_first(read_npy(path, LARGEST)), ""
    with opened(path, content) as image:
        if ";16" in str(getattr(image, "tile", "")) and image.mode[0] != "I":
            raise ValueError(f"has 16 bits of {image.mode}, of which 8 would be read; save it as .npy")
        if image.mode[0] in "IF":
            image.load()
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
            return np.array(image)[None], ""
    shown = decode(path, upright=upright, content=content, **how)
    return np.array(shown).transpose(2, 0, 1), shown.info.get(SAID, "")


def _channels_first(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        return values[None]
    if values.ndim == 3 and values.shape[0] in (1, 3):
        return values
    if values.ndim == 3 and values.shape[2] in (1, 3):
        return values.transpose(2, 0, 1)
    raise ValueError(f"wanted numbers (H, W), (H, W, 3) or (3, H, W), found {values.shape}")
