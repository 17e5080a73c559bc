"""Mean masks: where the classifier looks when it takes one class for another."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core import atomic
from core.evaluation.model import Experiment, Picture
from core.report.sheets import Sheets, heat_palette

PAIRS = 12
FADE = 0.45  # of the mean original behind the mask


@dataclass(frozen=True)
class MeanMask:
    """pair: predictions on the original and on the counterfactual, None for all pictures; peak: the largest mean, of 1;
    width: of the pictures."""

    pair: tuple[int, int] | None
    n: int
    peak: float
    file: str
    width: int


def frequent_pairs(pictures: tuple[Picture, ...], limit: int = PAIRS) -> list[tuple[int, int]]:
    """(prediction, cf_prediction), changed ones first, the most frequent first."""
    counts = Counter((picture.prediction, picture.cf_prediction) for picture in pictures)
    return sorted(counts, key=lambda pair: (pair[0] == pair[1], -counts[pair], pair))[:limit]


def draw_mean_masks(experiment: Experiment, sheets: dict[str, Sheets], folder: Path, stem: str) -> list[MeanMask]:
    """Write the mean mask over the mean original, of all pictures and of each frequent pair; [] without masks."""
    masked = [picture for picture in experiment.pictures if picture.mask]
    pairs = frequent_pairs(tuple(masked))
    groups = {pair: [p for p in masked if (p.prediction, p.cf_prediction) == pair] for pair in pairs}
    if len(groups) > 1:
        groups = {None: masked, **groups}
    found = []
    for i, (pair, pictures) in enumerate(groups.items()):
        mask = mean_tile(sheets["mask"], [picture.mask for picture in pictures]) / 255
        original = mean_tile(sheets["original"], [picture.original for picture in pictures])
        file = f"{stem}-{i:02d}.png"
        atomic.write_png(folder / file, overlay(original, mask))
        found.append(MeanMask(pair, len(pictures), float(mask.max()), file, sheets["original"].size[0]))
    return found


def mean_tile(sheets: Sheets, paths: list[Path]) -> np.ndarray:
    total = 0
    for path in paths:
        total = total + sheets.pixels(path).astype(np.float64)
    return total / len(paths)


def overlay(original: np.ndarray, mask: np.ndarray) -> Image.Image:
    """original: (H, W, 3) in 0..255, shown faded and grey; mask: (h, w) in [0, 1], shown as heat up to its maximum."""
    grey = original.mean(axis=2, keepdims=True).repeat(3, axis=2) * FADE
    levels = (mask / max(mask.max(), 1e-9) * 255).round().astype(np.uint8)
    if levels.shape != grey.shape[:2]:
        levels = np.asarray(Image.fromarray(levels).resize(grey.shape[1::-1], Image.Resampling.BILINEAR))
    heat = heat_palette()[levels].astype(np.float64)
    alpha = heat[..., 3:] / 255
    return Image.fromarray((grey * (1 - alpha) + heat[..., :3] * alpha).round().astype(np.uint8))
