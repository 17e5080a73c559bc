"""Thumbnails as tiles of sheets, many to a file, so that a page of 30,000 pictures loads few files at a time."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.data.pictures import decode
from ace_counterfactuals.core.evaluation.model import Evaluation

TILE, SHEET = 128, 512  # largest sides in pixels
LOSSLESS = 64  # pictures up to this side are kept as they are
QUALITY = 90
MANIFEST, VERSION = ".sheets.json", 1
KINDS = ("original", "counterfactual", "mask")


def heat_palette() -> np.ndarray:
    """(256, 4) uint8 RGBA, by a mask's level: from transparent over orange to pale yellow."""
    level = np.linspace(0, 1, 256)[:, None]
    low, high = np.array([[234, 70, 12]]), np.array([[255, 232, 150]])
    return np.hstack([low + (high - low) * level**2, 255 * level**0.9]).round().astype(np.uint8)


@dataclass(frozen=True)
class Sheets:
    """The sheets of one of KINDS.

    tiles: file -> its tile's number, counted through all sheets, row by row; box: (width, height) of a tile;
    grid: (columns, rows) of a sheet; size: (width, height) of the first picture; lossless: whether a tile holds every
    pixel of its picture; suffix: of the sheets' names.
    """

    folder: Path
    kind: str
    tiles: dict[Path, int]
    box: tuple[int, int]
    grid: tuple[int, int]
    size: tuple[int, int]
    lossless: bool
    suffix: str

    def path(self, sheet: int) -> Path:
        """The file of a sheet, by number."""
        return self.folder / f"{self.kind}-{sheet:05d}.{self.suffix}"

    def files(self) -> list[list[Path]]:
        """The pictures of each sheet."""
        files, step = list(self.tiles), math.prod(self.grid)
        return [files[start : start + step] for start in range(0, len(files), step)]

    def pixels(self, path: Path) -> np.ndarray:
        """A tile read back: (h, w) levels of a mask, (h, w, 3) of a picture."""
        columns, rows = self.grid
        sheet, place = divmod(self.tiles[path], columns * rows)
        width, height = self.box
        top, left = place // columns * height, place % columns * width
        return _read_sheet(self.path(sheet))[top : top + height, left : left + width]


def write_all_sheets(evaluation: Evaluation, folder: Path) -> dict[str, Sheets]:
    """The sheets of each kind that has pictures; other files of ``folder`` are removed.

    A sheet of the last call is kept where its files have the same paths, sizes and times.
    """
    pictures = [picture for experiment in evaluation.experiments for picture in experiment.pictures]
    made = {kind: _arrange(folder, kind, (getattr(picture, kind) for picture in pictures)) for kind in KINDS}
    made = {kind: sheets for kind, sheets in made.items() if sheets.tiles}
    tasks = [(sheets, i, files) for sheets in made.values() for i, files in enumerate(sheets.files())]
    known = _read_manifest(folder / MANIFEST)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = dict(pool.map(lambda task: _write_sheet(*task, known), tasks))
    _read_sheet.cache_clear()
    atomic.write_json(folder / MANIFEST, entries)
    remove_others(folder, {*entries, MANIFEST})
    return made


def remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove what an earlier report of more pictures left."""
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()


def _arrange(folder: Path, kind: str, paths: Iterable[Path | None]) -> Sheets:
    tiles = {path: number for number, path in enumerate(dict.fromkeys(filter(None, paths)))}
    size = decode(next(iter(tiles))).size if tiles else (1, 1)
    box = tuple(max(1, round(side * min(1, TILE / max(size)))) for side in size)
    small, mask = max(size) <= LOSSLESS, kind == "mask"
    if not mask and not small:  # JPEG blocks of two tiles then never meet
        box = tuple(max(8, round(side / 8) * 8) for side in box)
    count = max(1, len(tiles))
    columns = min(max(1, SHEET // box[0]), count)
    grid = columns, min(max(1, SHEET // box[1]), -(-count // columns))
    lossless, suffix = small and not mask, "png" if small or mask else "jpg"
    return Sheets(folder, kind, tiles, box, grid, size, lossless, suffix)


def _write_sheet(sheets: Sheets, number: int, files: Sequence[Path], known: dict) -> tuple[str, str]:
    """The sheet's name and the digest of what it shows."""
    path = sheets.path(number)
    facts = [(os.fspath(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr((VERSION, sheets.kind, sheets.box, sheets.grid, facts)).encode()).hexdigest()
    if known.get(path.name) != digest or not path.exists():
        atomic.write_bytes(path, _draw(sheets, files))
    return path.name, digest


def _draw(sheets: Sheets, files: Sequence[Path]) -> bytes:
    (columns, rows), (width, height) = sheets.grid, sheets.box
    mask = sheets.kind == "mask"
    sheet = Image.new("L" if mask else "RGB", (columns * width, rows * height))
    for i, file in enumerate(files):
        tile = decode(file).convert(sheet.mode)
        if tile.size != sheets.box:
            tile = tile.resize(sheets.box, Image.Resampling.LANCZOS)
        sheet.paste(tile, (i % columns * width, i // columns * height))
    options = {"quality": QUALITY, "subsampling": 0} if sheets.suffix == "jpg" else {}
    if mask:
        palette = heat_palette()
        sheet.putpalette(palette[:, :3].tobytes())
        options = {"transparency": palette[:, 3].tobytes()}
    buffer = BytesIO()
    sheet.save(buffer, "png" if sheets.suffix == "png" else "jpeg", **options)
    return buffer.getvalue()


@lru_cache(maxsize=8)
def _read_sheet(path: Path) -> np.ndarray:
    with Image.open(path) as sheet:
        return np.asarray(sheet)


def _read_manifest(path: Path) -> dict:
    """{} where there is none, or it cannot be read: then every sheet is made anew."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
