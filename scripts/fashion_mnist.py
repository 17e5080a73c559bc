"""Turn the four files of Fashion-MNIST into class folders of 32 x 32 PNG pictures.

    python scripts/fashion_mnist.py SOURCE TARGET [--per-class N]

SOURCE holds train-images-idx3-ubyte.gz and so on (Debian's dataset-fashion-mnist puts them into
/usr/share/datasets/fashion-mnist). Writes TARGET/train and TARGET/test, or, with --per-class, the first N of each
class of the test set straight into TARGET. The 28 x 28 photographs get two black pixels a side.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot")


def read(source: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32, 32) uint8 pictures and (N,) labels of the IDX files of a part, 'train' or 't10k'."""
    pictures = np.frombuffer(
        gzip.decompress((source / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((source / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return np.pad(pictures.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2))), labels


def write(target: Path, pictures: np.ndarray, labels: np.ndarray, per_class: int | None) -> None:
    """A PNG for each of the pictures, or for the first ``per_class`` of each class, in ``target``/CLASS."""
    for name in CLASSES:
        (target / name).mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(CLASSES):
        for place in np.flatnonzero(labels == label)[:per_class]:
            Image.fromarray(pictures[place]).convert("RGB").save(target / name / f"{place:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--per-class", type=int, help="only so many of each class, of the test set")
    args = parser.parse_args()
    if args.per_class:
        write(args.target, *read(args.source, "t10k"), args.per_class)
        return
    for part, name in (("train", "train"), ("t10k", "test")):
        write(args.target / name, *read(args.source, part), None)


if __name__ == "__main__":
    main()
