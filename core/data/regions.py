"""``--region``: where pictures may change, from a rectangle, a picture that is white there, or a folder of these."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import UserError, names_a_file
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, is_picture, resize_crop, resize_wide
from ace_counterfactuals.models.loading import digest

FLAG = "--region"


def read_rectangle(text: str) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in pixels of the explained picture; x1 and y1 are the first outside."""
    try:
        x0, y0, x1, y1 = (int(number) for number in text.split(","))
    except ValueError:
        raise UserError(f"{FLAG} {text}: wanted four whole numbers, x0,y0,x1,y1") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise UserError(f"{FLAG} {text}: holds no pixel; wanted 0 <= x0 < x1 and 0 <= y0 < y1")
    return x0, y0, x1, y1


@dataclass
class Region:
    """One of rectangle, picture and folder is given.  invert: the rest of it may change instead.

    folder: path of a picture in it, without ending -> file.
    """

    text: str
    invert: bool
    rectangle: tuple[int, int, int, int] | None = None
    picture: Path | None = None
    folder: dict[str, Path] = field(default_factory=dict)
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    resized: bool = False

    def check(self, files: Sequence[str], height: int, width: int) -> None:
        """Refuse, before anything is explained, pictures without a region, with another's, or with an empty one.

        files: paths of the pictures below the data folder; height, width: of all of them, as they are explained.
        """
        if self.folder:
            self.check_names(files)
        if self.rectangle and (self.rectangle[2] > width or self.rectangle[3] > height):
            notice(f"{FLAG} {self.text}: reaches beyond the pictures, which are {width} x {height}")
        for file in files if self.folder else files[:1]:
            self.mask(file, height, width)

    def check_names(self, files: Sequence[str]) -> None:
        missing = [file for file in files if self.source(file) is None]
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UserError(f"{FLAG} {self.text}: has no picture for {len(missing)} of {len(files)}: {shown}")
        users = {}
        for file in files:
            source = self.source(file)
            if users.setdefault(source, file) != file:
                raise UserError(
                    f"{FLAG} {self.text}: {source.name} would be the region of both {users[source]} and {file}; "
                    f"lay the folder out as the data: {PurePosixPath(file).with_suffix(source.suffix)}"
                )

    def source(self, file: str) -> Path | None:
        """The picture that tells the region of ``file``; in a folder the one of its path, or of its name."""
        name = PurePosixPath(file).with_suffix("")
        return self.picture or self.folder.get(str(name)) or self.folder.get(name.name)

    def masks(self, files: Sequence[str], image: Tensor) -> Tensor:
        """(N, 1, H, W) bool for pictures (N, 3, H, W), on their device."""
        return torch.stack([self.mask(file, *image.shape[2:]) for file in files]).to(image.device)

    def mask(self, file: str, height: int, width: int) -> Tensor:
        """(1, H, W) bool: where ``file`` may change.  Raises UserError where that is nowhere."""
        if self.folder:
            return self.read(file, height, width)
        if (height, width) not in self.known:
            self.known[height, width] = self.read(file, height, width)
        return self.known[height, width]

    def read(self, file: str, height: int, width: int) -> Tensor:
        if self.rectangle:
            x0, y0, x1, y1 = self.rectangle
            white = torch.zeros(height, width, dtype=torch.bool)
            white[y0:y1, x0:x1] = True
        else:
            white = self.white_pixels(self.source(file), height, width)
        allowed = white ^ self.invert
        if not allowed.any():
            place, covered = self.source(file) or self.text, "all" if self.invert else "nothing"
            raise UserError(f"{FLAG} {place}: covers {covered} of {file}, which is {width} x {height}")
        return allowed[None]

    def white_pixels(self, path: Path, height: int, width: int) -> Tensor:
        """(H, W) bool: where the picture is brighter than half.  Another size is scaled, with one notice a run."""
        try:
            picture = decode(path)
        except UnreadableImage as error:
            raise UserError(f"{FLAG} {path}: unreadable picture: {error.reason}") from None
        if picture.size != (width, height) and not self.resized:
            self.resized = True
            sizes = f"{picture.width} x {picture.height}, scaled and cropped to {width} x {height} as the pictures are"
            notice(f"{FLAG} {path}: is {sizes}")
        return torch.from_numpy(np.asarray(fitted(picture, height, width).convert("L")) >= 128)


def fitted(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Made as large as the data sets make theirs: wide ones whole, others by their central square."""
    if picture.size == (width, height):
        return picture
    if width == height:
        return resize_crop(picture, height)
    return resize_wide(picture, height) if width == 2 * height else picture.resize((width, height))


def open_region(text: str, *, invert: bool) -> Region | None:
    """What the flags describe; None for everywhere.  Raises UserError for what is neither a rectangle nor there."""
    if not text and invert:
        raise UserError(f"{FLAG}_invert True: there is nothing to invert; give a {FLAG}")
    if not text:
        return None
    if not names_a_file(text):
        return Region(text, invert, rectangle=read_rectangle(text))
    path = Path(text).expanduser()
    if path.is_file():
        return Region(text, invert, picture=path)
    if not path.is_dir():
        raise UserError(f"{FLAG} {text}: no such file; wanted x0,y0,x1,y1, a picture, or a folder of pictures")
    folder = {file.relative_to(path).with_suffix("").as_posix(): file for file in region_files(path)}
    if not folder:
        raise UserError(f"{FLAG} {text}: the folder holds no picture")
    return Region(text, invert, folder=folder)


def region_digest(text: str) -> str | None:
    """Of the picture, or of all in the folder; None where the text says all."""
    if not text or not names_a_file(text):
        return None
    path = Path(text).expanduser()
    if not path.is_dir():
        return digest(path)
    files = (f"{file.relative_to(path).as_posix()} {digest(file)}\n" for file in region_files(path))
    return hashlib.sha256("".join(files).encode()).hexdigest()


def region_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_picture(path.name) and path.is_file())
