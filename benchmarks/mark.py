"""The planted shortcut: a small grey mark where pullovers and coats are black, and how it is looked for.

Pictures are (N, C, H, W) in [0, 1].
"""

import numpy as np
from torch import Tensor

CLASSES = OTHER, CARRIER = ("pullover", "coat")
X0, Y0, X1, Y1 = PLACE = (2, 2, 6, 6)  # the corner of the photograph inside the demo's two black pixels
FAINTEST, BRIGHTEST = 0.2, 0.4  # its levels in the pictures that the networks learn
LEVEL = 0.3  # in the pictures that are explained
THRESHOLD = LEVEL / 2  # a picture has the mark if the mean level in its place is above


def plant(image: Tensor, level: float = LEVEL) -> Tensor:
    """A copy with the mark."""
    marked = image.clone()
    marked[..., Y0:Y1, X0:X1] = level
    return marked


def level(image: Tensor) -> Tensor:
    """(N,) mean level in the mark's place."""
    return image[..., Y0:Y1, X0:X1].mean((1, 2, 3))


def has_mark(image: Tensor) -> Tensor:
    """(N,) bool."""
    return level(image) > THRESHOLD


def share_of_change(image: Tensor, changed: Tensor) -> Tensor:
    """(N,) share of the sum of |x - ce| that lies in the mark's place, 0 of an unchanged picture."""
    change = (image - changed).abs().double()
    return change[..., Y0:Y1, X0:X1].sum((1, 2, 3)) / change.sum((1, 2, 3)).clamp(min=1e-12)


def ratio_interval(a: np.ndarray, b: np.ndarray, *, seed: int, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of mean(a) / mean(b) of paired values, (N,) each: pictures are drawn again (bootstrap)."""
    chosen = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    ratios = a[chosen].mean(1) / np.maximum(b[chosen].mean(1), 1e-12)
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))
