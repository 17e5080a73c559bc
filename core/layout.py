"""The result folder: DiME's layout of pictures, and a record of each finished picture.

A picture is finished when ``records/NNNNNNN.json`` exists, which is written last: its other files are whole by then.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from core import atomic
from core.explain import Explanation
from core.filtering import change_mask
from core.records import KINDS, Record

CONTENTS = ("CF", "Noise", "Info", "SM")
FOLDERS = tuple(f"{correct}/{flipped}" for correct in ("CC", "IC") for flipped in ("CCF", "ICF"))


def to_pil(picture: Tensor) -> Image.Image:
    """(3, H, W) or (1, H, W) in [0, 1] -> 8-bit picture, rounded (the original truncates)."""
    levels = (picture * 255).round().clamp(0, 255).byte().cpu().numpy()
    return Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))


@dataclass(frozen=True)
class ResultFolder:
    """``Original`` and ``Results/EXP`` below an output folder."""

    output: Path
    exp_name: str

    @property
    def root(self) -> Path:
        return self.output / "Results" / self.exp_name

    @property
    def records_folder(self) -> Path:
        return self.root / "records"

    def create(self) -> None:
        """Make every folder of the layout, also those that stay empty."""
        leaves = [f"{kind}/{folder}/{content}" for kind in KINDS for folder in FOLDERS for content in CONTENTS]
        for leaf in leaves:
            (self.root / leaf).mkdir(parents=True, exist_ok=True)
        for correct in ("Correct", "Incorrect"):
            (self.output / "Original" / correct).mkdir(parents=True, exist_ok=True)
        self.records_folder.mkdir(exist_ok=True)

    def path(self, kind: str, folder: str, content: str, index: int) -> Path:
        suffix = "txt" if content == "Info" else "png"
        return self.root / kind / folder / content / f"{index:07d}.{suffix}"

    def original(self, index: int, correct: bool) -> Path:
        return self.output / "Original" / ("Correct" if correct else "Incorrect") / f"{index:07d}.png"

    def write(self, record: Record, explanation: Explanation, i: int, *, save_images: bool = True) -> None:
        """Write the i-th picture of a batch, its record last."""
        pictures = {"pre-explanation": explanation.pre_explanation[i], "explanation": explanation.counterfactual[i]}
        image, noised = explanation.image[i], to_pil(explanation.noised[i])
        if save_images:
            self.write_original(record, to_pil(image))
        for kind in KINDS:
            folder = record.folder(kind)
            self.remove_twins(kind, folder, record.index)
            atomic.write_text(self.path(kind, folder, "Info", record.index), record.info(kind))
            if save_images:
                mask = change_mask(image[None], pictures[kind][None])[0]
                contents = {"CF": to_pil(pictures[kind]), "Noise": noised, "SM": to_pil(mask)}
                for content, picture in contents.items():
                    atomic.write_png(self.path(kind, folder, content, record.index), picture)
        atomic.write_json(self.records_folder / f"{record.index:07d}.json", record.to_dict())

    def write_original(self, record: Record, picture: Image.Image) -> None:
        """Store the original once for all experiments of an output folder, which must explain the same pictures."""
        path, twin = (self.original(record.index, correct) for correct in (record.correct, not record.correct))
        for stored in filter(Path.exists, (path, twin)):
            if not same_picture(stored, picture):
                raise ValueError(
                    f"--output_path {self.output}: {stored.relative_to(self.output)} is another picture than "
                    f"{record.file}; experiments on other data or of another size need another output folder"
                )
        atomic.write_png(path, picture)
        twin.unlink(missing_ok=True)

    def remove_twins(self, kind: str, folder: str, index: int) -> None:
        """Drop what an earlier attempt left of this picture in the other folders."""
        for other in FOLDERS:
            if other != folder:
                for content in CONTENTS:
                    self.path(kind, other, content, index).unlink(missing_ok=True)

    def write_skipped(self, index: int, file: str, reason: str) -> None:
        """Remember a picture that cannot be read; the next run tries it again."""
        atomic.write_json(self.records_folder / f"{index:07d}.json", {"index": index, "file": file, "skipped": reason})

    def read(self) -> tuple[dict[int, Record], dict[int, dict]]:
        """index -> record of the finished pictures, and of the skipped ones, both in order."""
        finished, skipped = {}, {}
        for path in sorted(self.records_folder.glob("*.json")):
            values = json.loads(path.read_text())
            if "skipped" in values:
                skipped[values["index"]] = values
            else:
                finished[values["index"]] = Record.from_dict(values)
        return finished, skipped

    def pictures_of(self, record: Record) -> dict[str, Path] | None:
        """The pictures to show of a finished one; None where they were not saved."""
        originals = (self.original(record.index, correct) for correct in (True, False))  # another classifier moves it
        shown = {
            "original": next(filter(Path.exists, originals), None),
            **{kind: self.path(kind, record.folder(kind), "CF", record.index) for kind in KINDS},
            "mask": self.path("pre-explanation", record.folder("pre-explanation"), "SM", record.index),
        }
        return shown if all(path and path.exists() for path in shown.values()) else None


def same_picture(path: Path, picture: Image.Image) -> bool:
    with Image.open(path) as stored:
        return stored.size == picture.size and np.array_equal(np.asarray(stored), np.asarray(picture))
