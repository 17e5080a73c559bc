"""A finished run that refinements start from, and what they left."""

import csv
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ace_counterfactuals.core.cli import refine
from tests.support.toys import Workshop, exit_code

OWN = "all_filtered_r-10_i-0.5_d-1_f-0.2"
RUN = {"attack_method": "GD", "attack_step": 60, "sampling_inpaint": 0.5, "sampling_dilation": 1, "batch_size": 1}


class Refinery(Workshop):
    """A workshop whose run keeps about a sixth of each picture's pixels in the mask."""

    def refine(self, *words, exp_name: str = "exp", **changes) -> int:
        """postprocessing.py's exit code; its errors are raised.  words: flags with several values."""
        flags = {"output_path": self.output, "exp_name": exp_name, "device": "cpu", "num_workers": 0, "batch_size": 1}
        typed = [part for name, value in {**flags, **changes}.items() for part in (f"--{name}", str(value))]
        return refine.main([*typed, *map(str, words)])

    def error(self, capsys, *words, **changes) -> str:
        assert exit_code(lambda: self.refine(*words, **changes)) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1
        return lines[0]

    def levels(self, content: str, folder: str) -> dict[str, np.ndarray]:
        """Name -> the 8-bit picture, of an experiment's folder that holds CC and IC."""
        paths = sorted((self.output / "Results" / folder).glob(f"*/*/{content}/*.png"))
        return {path.name: np.asarray(Image.open(path)).astype(int) for path in paths}

    def originals(self) -> dict[str, np.ndarray]:
        paths = (self.output / "Original").glob("*/*.png")
        return {path.name: np.asarray(Image.open(path)).astype(int) for path in paths}

    def forget_all_but_the_pictures(self):
        """Leave what the original program would have left."""
        for path in self.results().iterdir():
            if path.name not in ("pre-explanation", "explanation"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.results().rglob("*.npy"):
            path.unlink()


def rows(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
