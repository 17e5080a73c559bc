"""The pictures that a program holds, in any of its forms, as what an explanation takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.data.config import PicturesConfig
from ace_counterfactuals.core.data.imageset import Sample, prefetch, with_channels
from ace_counterfactuals.core.data.pictures import decode, is_grey, resize_crop, to_rgb, to_tensor
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.run import file_name
from ace_counterfactuals.core.runs.setup import align_classes, open_images, select_images, with_predictions

KINDS = "wanted tensors or arrays (N, C, H, W) in [0, 1], PIL pictures, files of pictures, or a folder of these"


@dataclass(frozen=True)
class Given:
    """images: (N, C, H, W) in [0, 1], C 1 or 3.  indices, files, labels: (N); a label is -1 where unknown.

    class_names: of the labels, None where there are none.
    """

    images: Tensor
    indices: Sequence[int]
    files: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...] | None = None


def given_of(images: Any, side: int | None, data: PicturesConfig) -> Given:
    """Pictures that are no folder.  side: to which files and PIL pictures are cut and resized, None is not at all.
    data: what else is done with these.

    Raises ValueError for what are none.
    """
    several = list(images) if isinstance(images, list | tuple) else [images]
    parts = [_tensor(one, side, data) for one in several]
    sizes = sorted({tuple(part.shape[2:]) for part in parts})
    if len(sizes) != 1:
        raise ValueError(f"got pictures of {len(sizes)} sizes {sizes[:2]}; {KINDS}, all of one size")
    channels = max(part.shape[1] for part in parts)
    found = torch.cat([part.expand(-1, channels, -1, -1) if part.shape[1] == 1 else part for part in parts])
    indices, named = range(len(found)), all(isinstance(one, str | Path) for one in several)
    files = [str(one) for one in several] if named else [f"{index:07d}.png" for index in indices]
    return Given(found, indices, files, [-1] * len(found))


def _tensor(one: Any, side: int | None, data: PicturesConfig) -> Tensor:
    """(N, C, H, W), of one picture N 1, which may be grey in C 1."""
    one = decode(Path(one), background=data.background) if isinstance(one, str | Path) else one
    if isinstance(one, Image.Image):
        colour = to_rgb(one.copy(), data.background)
        picture = to_tensor(resize_crop(colour, side) if side else colour)
        return (picture[:1] if data.image_channels != 3 and is_grey(colour) else picture)[None]
    if not isinstance(one, Tensor | np.ndarray):
        raise ValueError(f"got {type(one).__name__}; {KINDS}")
    found = torch.as_tensor(one)
    found = found[None] if found.ndim == 3 else found
    if found.ndim != 4:
        raise ValueError(f"got an array of shape {tuple(found.shape)}; {KINDS}")
    if found.shape[1] not in (1, 3) and found.shape[3] in (1, 3):
        found = found.permute(0, 3, 1, 2)
    if found.dtype == torch.uint8:
        return found.float() / 255
    if not found.is_floating_point():
        raise ValueError(f"got numbers of type {found.dtype}; wanted floats in [0, 1], or uint8 from 0 to 255")
    return found if isinstance(one, Tensor) else found.float()


def folder_of(
    config: MainConfig, classifier: Callable[[Tensor], Tensor], class_names: tuple[str, ...] | None
) -> tuple[MainConfig, Given]:
    """The pictures of a folder as main.py reads them: of the class ``label_query`` if that is given, else all.

    class_names: the classifier's, by which labels, query and target are numbered.  Returns the settings with these
    numbers, too.  Raises ValueError for a folder without pictures.
    """
    images = with_channels(open_images(config), config.data.image_channels)
    config, images = align_classes(config, images, class_names)
    if config.data.label_query != -1 or images.binary:
        images = select_images(with_predictions(config, images, classifier), config)
    found = []
    for item in prefetch(images, range(len(images)), config.run.num_workers):
        if isinstance(item, Sample):
            found.append(item)
        else:
            notice(f"skipped: {item}")
    if not found:
        raise ValueError(f"data_dir {config.data.data_dir}: none of its {len(images)} pictures can be read")
    stacked, indices = torch.stack([sample.image for sample in found]), [sample.index for sample in found]
    files, labels = [file_name(config, sample.path) for sample in found], [sample.label for sample in found]
    return config, Given(stacked, indices, files, labels, images.class_names)
