"""The curve of a loss over a training."""

import numpy as np

PARTS = 20  # of a training, over each of which the curve is a mean


def running_mean(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (N,) values, over a ``PARTS``-th of them, each at the last step of its own; as they are where N is less."""
    width = max(len(values) // PARTS, 1)
    return steps[width - 1 :], np.convolve(values, np.full(width, 1 / width), "valid")
