"""Mean masks: where the pictures changed when the classifier took one class for another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.model import Experiment, Picture
from ace_counterfactuals.core.report.sheets import Sheets, heat_palette

PAIRS = 12
FADE = 0.55  # of the mean original behind the mask
UNKNOWN_PAIR = (-1, -1)
EMPHASIS = 1.5  # of the places that change most


@dataclass(frozen=True)
class MeanMask:
    """pair: predictions on the original and on the counterfactual, None for all pictures; n: their number;
    peak: the largest mean, in [0, 1]; file: its name; width: of the pictures in pixels."""

    pair: tuple[int, int] | None
    n: int
    peak: float
    file: str
    width: int


def frequent_pairs(pictures: Sequence[Picture]) -> dict[tuple[int, int], int]:
    """(prediction, cf_prediction) -> pictures: first where they differ, of these the most frequent first."""
    counts = Counter((picture.prediction, picture.cf_prediction) for picture in pictures)
    return dict(sorted(counts.items(), key=lambda item: (item[0][0] == item[0][1], -item[1], item[0])))


def draw_mean_masks(experiment: Experiment, sheets: dict[str, Sheets], folder: Path, stem: str) -> list[MeanMask]:
    """Write the mean mask over the mean original, of all pictures and of each frequent pair; [] without masks."""
    masked = [picture for picture in experiment.pictures if picture.mask]
    pairs = list(frequent_pairs(masked))[:PAIRS]
    keys = pairs if len(pairs) == 1 and pairs != [UNKNOWN_PAIR] else [None, *pairs]
    sums = {key: (0, 0.0, 0.0) for key in keys if masked and key != UNKNOWN_PAIR}  # number, masks, originals
    for picture in masked:  # in the order of the sheets, which are then read once
        mask, original = sheets["mask"].pixels(picture.mask), sheets["original"].pixels(picture.original)
        for key in {None, (picture.prediction, picture.cf_prediction)} & sums.keys():
            n, masks, originals = sums[key]
            sums[key] = n + 1, masks + mask, originals + original
    found = []
    for i, (pair, (n, masks, originals)) in enumerate(sums.items()):
        mask, file = masks / n / 255, f"{stem}-{i:02d}.png"
        atomic.write_png(folder / file, overlay(originals / n, mask))
        found.append(MeanMask(pair, n, float(mask.max()), file, sheets["original"].size[0]))
    return found


def overlay(original: np.ndarray, mask: np.ndarray) -> Image.Image:
    """original: (H, W, 3) in 0..255, shown faded and grey; mask: (h, w) in [0, 1], shown as heat up to its maximum."""
    grey = original.mean(axis=2, keepdims=True).repeat(3, axis=2) * FADE
    levels = ((mask / max(mask.max(), 1e-9)) ** EMPHASIS * 255).round().astype(np.uint8)
    if levels.shape != grey.shape[:2]:
        levels = np.asarray(Image.fromarray(levels).resize(grey.shape[1::-1], Image.Resampling.BILINEAR))
    heat = heat_palette()[levels].astype(np.float64)
    alpha = heat[..., 3:] / 255
    return Image.fromarray((grey * (1 - alpha) + heat[..., :3] * alpha).round().astype(np.uint8))
