"""Where pictures may change: in a rectangle, where a picture is white, or where the picture of their name is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import FlagError, names_a_file
from ace_counterfactuals.core.data.folders import first, is_picture
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, resize_crop, resize_wide
from ace_counterfactuals.models.loading import digest


@dataclass
class Region:
    """``rectangle`` (x0, y0, x1, y1), or ``picture``, or ``folder``: path in it without ending -> picture.

    text: the setting ``region``; invert: what is outside may change instead.
    """

    text: str
    invert: bool
    rectangle: tuple[int, int, int, int] | None = None
    picture: Path | None = None
    folder: dict[str, Path] = field(default_factory=dict)
    resized: bool = False

    def check(self, files: Sequence[str], height: int, width: int) -> None:
        """Raise FlagError for pictures without a region, with another's, or with an empty one.

        files: paths of the pictures below the data folder; height, width: of all of them, as they are explained.
        """
        if self.folder:
            self._check_names(files)
        if self.rectangle and (self.rectangle[2] > width or self.rectangle[3] > height):
            notice(f"region {self.text}: reaches beyond the pictures, which are {width} x {height}")
        for file in files if self.folder else files[:1]:
            self.mask(file, height, width)

    def masks(self, files: Sequence[str], image: Tensor) -> Tensor:
        """(N, 1, H, W) bool for pictures (N, 3, H, W), on their device."""
        return torch.stack([self.mask(file, *image.shape[2:]) for file in files]).to(image.device)

    def mask(self, file: str, height: int, width: int) -> Tensor:
        """(1, H, W) bool: where ``file`` may change.  Raises FlagError where that is nowhere."""
        source = self._source(file)
        white = torch.zeros(height, width, dtype=torch.bool)
        if self.rectangle:
            x0, y0, x1, y1 = self.rectangle
            white[y0:y1, x0:x1] = True
        elif source:
            white = self._white_pixels(source, height, width)
        allowed = white ^ self.invert
        if not allowed.any():
            covered = "all" if self.invert else "nothing"
            raise FlagError("region", f"{source or self.text}: covers {covered} of {file}, which is {width} x {height}")
        return allowed[None]

    def _check_names(self, files: Sequence[str]) -> None:
        found = {file: self._source(file) for file in files}
        sources = {file: source for file, source in found.items() if source}
        if missing := [file for file in found if file not in sources]:
            said = f"{self.text}: has no picture for {len(missing)} of {len(files)}: {first(missing, 5)}"
            raise FlagError("region", said)
        users: dict[Path, str] = {}
        for file, source in sources.items():
            if users.setdefault(source, file) != file:
                place = PurePosixPath(file).with_suffix(source.suffix)
                said = f"{self.text}: {source.name} would be the region of both {users[source]} and {file}"
                raise FlagError("region", f"{said}; lay the folder out as the data: {place}")

    def _source(self, file: str) -> Path | None:
        """The picture that tells the region of ``file``; in a folder the one of its path, or of its name."""
        name = PurePosixPath(file).with_suffix("")
        return self.picture or self.folder.get(str(name)) or self.folder.get(name.name)

    def _white_pixels(self, path: Path, height: int, width: int) -> Tensor:
        """(H, W) bool: where the picture is brighter than half.  Another size is scaled, with one notice a run."""
        try:
            picture = decode(path)
        except UnreadableImage as error:
            raise FlagError("region", str(error)) from None
        if picture.size != (width, height):
            if not self.resized:
                sizes = f"{picture.width} x {picture.height}, scaled and cropped to {width} x {height}"
                notice(f"region {path}: is {sizes} as the pictures are")
            self.resized = True
            picture = resize_crop(picture, height) if width == height else resize_wide(picture, height)
        return torch.from_numpy(np.asarray(picture.convert("L")) >= 128)


def open_region(text: str, *, invert: bool) -> Region | None:
    """The settings ``region`` and ``region_invert``; None is everywhere.

    text: x0,y0,x1,y1 in pixels of the explained picture, of which x1 and y1 are the first outside, or the path of a
    picture or folder.  Raises FlagError for what is neither.
    """
    if not text and invert:
        raise FlagError("region_invert", "True: there is nothing to invert; give a region")
    if not text:
        return None
    if not names_a_file(text):
        return Region(text, invert, rectangle=_read_rectangle(text))
    path = Path(text).expanduser()
    if path.is_file():
        return Region(text, invert, picture=path)
    if not path.is_dir():
        raise FlagError("region", f"{text}: no such file; wanted x0,y0,x1,y1, a picture, or a folder of pictures")
    folder = {file.relative_to(path).with_suffix("").as_posix(): file for file in _pictures_below(path)}
    if not folder:
        raise FlagError("region", f"{text}: the folder holds no picture")
    return Region(text, invert, folder=folder)


def region_digest(text: str) -> str | None:
    """SHA-256 of the picture, or of all in the folder; None where the text says all."""
    if not text or not names_a_file(text):
        return None
    path = Path(text).expanduser()
    if not path.is_dir():
        return digest(path)
    files = (f"{file.relative_to(path).as_posix()} {digest(file)}\n" for file in _pictures_below(path))
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _read_rectangle(text: str) -> tuple[int, int, int, int]:
    try:
        x0, y0, x1, y1 = (int(number) for number in text.split(","))
    except ValueError:
        raise FlagError("region", f"{text}: wanted four whole numbers, x0,y0,x1,y1") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise FlagError("region", f"{text}: holds no pixel; wanted 0 <= x0 < x1 and 0 <= y0 < y1")
    return x0, y0, x1, y1


def _pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_picture(path.name) and path.is_file())
