"""What the cache of evaluate.py saves, and how much memory it takes: python benchmarks/evaluation.py --help

Random pictures and a network of random weights; no figure means anything. Every evaluation is a process of its own, so
that its peak memory is its own; what the process needs before it reads a picture is measured with one of 10 pictures.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import save_classifier
from benchmarks.trial import spent


def write_pictures(output: Path, count: int, side: int, seed: int = 0) -> None:
    """``count`` originals and counterfactuals that differ from them everywhere, all flipped."""
    rng = np.random.default_rng(seed)
    folders = output / "Original/Correct", output / "Results/exp/explanation/CC/CCF/CF"
    for folder in folders:
        folder.mkdir(parents=True)
    for index in range(count):
        levels = rng.integers(0, 230, (side, side, 3), dtype=np.uint8)
        for folder, picture in zip(
            folders, (levels, levels + rng.integers(0, 25, levels.shape, np.uint8)), strict=True
        ):
            Image.fromarray(picture).save(folder / f"{index:07d}.png", compress_level=1)


def write_network(path: Path, arch: str) -> None:
    torch.manual_seed(0)
    network, half = build_classifier(arch, 10).eval(), [0.5] * 3
    names = [str(i) for i in range(10)]
    save_classifier(path, network, arch=arch, class_names=names, mean=half, std=half, image_size=32)


def evaluate(output: Path, network: Path) -> tuple[float, float]:
    """(seconds, peak MiB) of a process."""
    words = ["--output-path", output, "--features", network, "--device", "cpu", "--num-workers", "1"]
    words += ["--evaluation-path", output / "evaluation", "--cache-path", output.with_name(f"{output.name}-cache")]
    seconds, _, peak = spent("evaluate.py", *words, quiet=True)
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=30000, help="pairs of pictures")
    parser.add_argument("--side", type=int, default=32, help="of the pictures, in pixels")
    parser.add_argument("--arch", default="small-32", help="network whose features are compared")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.pt"
        write_network(network, flags.arch)
        for name, count in (("few", 10), ("many", flags.count)):
            write_pictures(Path(folder) / name, count, flags.side)
        _, floor = evaluate(Path(folder) / "few", network)
        cold, peak = evaluate(Path(folder) / "many", network)
        warm, again = evaluate(Path(folder) / "many", network)
    print(f"{flags.count} pairs of {flags.side} x {flags.side}, {flags.arch}, torch {torch.__version__}")
    print(f"cold {cold:.1f} s, warm {warm:.1f} s: warm / cold = {warm / cold:.3f}")
    print(f"peak memory: {peak:.0f} MiB cold, {again:.0f} MiB warm; of 10 pictures {floor:.0f} MiB")


if __name__ == "__main__":
    main()
