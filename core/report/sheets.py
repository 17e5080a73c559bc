"""Thumbnails as tiles of sheets, many to a file, so that a page of 30,000 pictures loads few files at a time."""

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import read_bytes, read_json
from ace_counterfactuals.core.data.pictures import decode
from ace_counterfactuals.core.evaluation.model import Evaluation

TILE, SHEET = 128, 512  # largest sides in pixels
LOSSLESS = 64  # pictures up to this side are kept as they are
QUALITY = 90
LARGEST = 2**26  # bytes of a sheet
VERSION = 1
KINDS = ("original", "counterfactual", "mask")


def heat_palette() -> np.ndarray:
    """(256, 4) uint8 RGBA, by a mask's level: from transparent over orange to pale yellow."""
    level = np.linspace(0, 1, 256)[:, None]
    low, high = np.array([[234, 70, 12]]), np.array([[255, 232, 150]])
    return np.hstack([low + (high - low) * level**2, 255 * level**0.9]).round().astype(np.uint8)


@dataclass(frozen=True)
class Sheets:
    """The sheets of one of KINDS.

    tiles: file -> its tile's number, counted through all sheets, row by row; box: (width, height) of a tile; grid:
    (columns, rows) of a sheet; size: (width, height) of the first picture; suffix: of the sheets' names, png where a
    tile holds every pixel of its picture, and of masks.
    """

    folder: Path
    kind: str
    tiles: dict[Path, int]
    box: tuple[int, int]
    grid: tuple[int, int]
    size: tuple[int, int]
    suffix: str

    def place(self, path: Path) -> tuple[Path, int, int]:
        """The sheet that a picture's tile is in, and the tile's left and upper edge there."""
        sheet, place = divmod(self.tiles[path], math.prod(self.grid))
        row, column = divmod(place, self.grid[0])
        return self.folder / f"{self.kind}-{sheet:05d}.{self.suffix}", column * self.box[0], row * self.box[1]

    def pixels(self, path: Path) -> np.ndarray:
        """A tile read back: (h, w) levels of a mask, (h, w, 3) of a picture."""
        sheet, left, top = self.place(path)
        return _read_sheet(sheet)[top : top + self.box[1], left : left + self.box[0]]


def write_all_sheets(
    evaluation: Evaluation, folder: Path, cache: Path | None = None
) -> tuple[dict[str, Sheets], list[str]]:
    """The sheets of each kind that has pictures, and the names of their files.

    A sheet of the last call is kept where its pictures have the same paths, sizes and times, and where it is the file
    that was written then: ``cache`` remembers both, since a folder can come from anywhere.
    """
    pictures = [picture for experiment in evaluation.experiments for picture in experiment.pictures]
    paths = {kind: dict.fromkeys(filter(None, (getattr(picture, kind) for picture in pictures))) for kind in KINDS}
    made = {kind: _arrange(folder, kind, list(files)) for kind, files in paths.items() if files}
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    manifest = cache and cache / f"sheets-{place}.json"
    known = read_manifest(manifest) if manifest else {}
    tasks = []
    for sheets in made.values():
        files, step = list(sheets.tiles), math.prod(sheets.grid)
        tasks += [(sheets, files[start : start + step]) for start in range(0, len(files), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = dict(pool.map(lambda task: _write_sheet(*task, known), tasks))
    _read_sheet.cache_clear()
    if manifest:
        atomic.write_json(manifest, entries)
    return made, list(entries)


def read_manifest(path: Path) -> dict:
    """Name of a sheet -> digests; {} where there is none, or where it is damaged: then every sheet is made anew."""
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(path))
    return {}


def _arrange(folder: Path, kind: str, files: list[Path]) -> Sheets:
    size = decode(files[0]).size
    suffix = "png" if kind == "mask" or max(size) <= LOSSLESS else "jpg"
    unit, scale = 8 if suffix == "jpg" else 1, min(1, TILE / max(size))  # JPEG blocks of two tiles then never meet
    width, height = (max(unit, round(round(side * scale) / unit) * unit) for side in size)
    columns = min(SHEET // width, len(files))
    grid = columns, min(SHEET // height, -(-len(files) // columns))
    tiles = {path: number for number, path in enumerate(files)}
    return Sheets(folder, kind, tiles, (width, height), grid, size, suffix)


def _write_sheet(sheets: Sheets, files: Sequence[Path], known: dict) -> tuple[str, list[str]]:
    """Write the sheet of these pictures where it is not known; its name, and digests of what it shows and of it."""
    path, *_ = sheets.place(files[0])
    facts = [(os.fspath(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr((VERSION, sheets.kind, sheets.box, sheets.grid, facts)).encode()).hexdigest()
    if known.get(path.name) != [digest, sha256_of(path)]:
        atomic.write_bytes(path, _draw(sheets, files))
    return path.name, [digest, sha256_of(path)]


def sha256_of(path: Path) -> str:
    """Of a file, in hex; '' where there is none that could be a sheet."""
    with suppress(OSError, ValueError):
        return hashlib.sha256(read_bytes(path, LARGEST)).hexdigest()
    return ""


def _draw(sheets: Sheets, files: Sequence[Path]) -> bytes:
    (columns, rows), (width, height) = sheets.grid, sheets.box
    sheet = Image.new("L" if sheets.kind == "mask" else "RGB", (columns * width, rows * height))
    for file in files:
        tile = decode(file).convert(sheet.mode)
        if tile.size != sheets.box:
            tile = tile.resize(sheets.box, Image.Resampling.LANCZOS)
        sheet.paste(tile, sheets.place(file)[1:])
    buffer = BytesIO()
    if sheets.suffix == "jpg":
        sheet.save(buffer, "jpeg", quality=QUALITY, subsampling=0)
    elif sheets.kind == "mask":
        palette = heat_palette()
        sheet.putpalette(palette[:, :3].tobytes())
        sheet.save(buffer, "png", transparency=palette[:, 3].tobytes())
    else:
        sheet.save(buffer, "png")
    return buffer.getvalue()


@lru_cache(maxsize=8)
def _read_sheet(path: Path) -> np.ndarray:
    with Image.open(path) as sheet:
        return np.asarray(sheet)
