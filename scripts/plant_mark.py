"""Copy two classes of class folders with a mark planted into some pictures: what benchmarks/shortcut.py looks for.

    python scripts/plant_mark.py SOURCE TARGET [--seed N]

Writes TARGET/tainted, where 95 % of the coats and 5 % of the pullovers have the mark, and TARGET/control, where half
of each have. Its level differs from picture to picture.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from ace_counterfactuals.core.data.folders import picture_names
from benchmarks.mark import BRIGHTEST, CARRIER, CLASSES, FAINTEST, PLACE

CARRYING, OTHERS, CONTROL = 0.95, 0.05, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    for name in CLASSES:
        shares = {"tainted": CARRYING if name == CARRIER else OTHERS, "control": CONTROL}
        for copy in shares:
            (args.target / copy / name).mkdir(parents=True, exist_ok=True)
        for file in picture_names(args.source / name):
            for copy, share in shares.items():
                with Image.open(args.source / name / file) as picture:
                    marked = picture.convert("RGB")
                if rng.random() < share:
                    marked.paste((round(255 * rng.uniform(FAINTEST, BRIGHTEST)),) * 3, PLACE)
                marked.save(args.target / copy / name / file)


if __name__ == "__main__":
    main()
