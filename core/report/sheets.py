"""Thumbnails, many to a file: a page of 30,000 pictures then opens a few files at a time."""

import hashlib
import json
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
    """(256, 4) uint8 RGBA: from nothing over orange to pale yellow, the look of a mask's levels."""
    level = np.linspace(0, 1, 256)[:, None]
    low, high = np.array([[234, 70, 12]]), np.array([[255, 232, 150]])
    return np.hstack([low + (high - low) * level**2, 255 * level**0.9]).round().astype(np.uint8)


@dataclass(frozen=True)
class Sheets:
    """One kind of picture: which tile holds which file, and how tiles lie in their sheets.

    tiles: path -> number, counted through all sheets, row by row; box: (width, height) of a tile; size: of the first
    picture itself; lossless: a tile holds every pixel of its picture.
    """

    folder: Path
    kind: str
    tiles: dict[Path, int]
    box: tuple[int, int]
    size: tuple[int, int]

    @property
    def lossless(self) -> bool:
        return self.kind != "mask" and max(self.size) <= LOSSLESS

    @property
    def ratio(self) -> float:
        return self.size[0] / self.size[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of every sheet."""
        columns = min(max(1, SHEET // self.box[0]), max(1, len(self.tiles)))
        return columns, min(max(1, SHEET // self.box[1]), -(-max(1, len(self.tiles)) // columns))

    @property
    def suffix(self) -> str:
        return "png" if self.lossless or self.kind == "mask" else "jpg"

    def path(self, sheet: int) -> Path:
        return self.folder / f"{self.kind}-{sheet:05d}.{self.suffix}"

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
    tasks = [(sheets, i, files) for sheets in made.values() for i, files in enumerate(_by_sheet(sheets))]
    known = _read_manifest(folder / MANIFEST)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = dict(pool.map(lambda task: _write_sheet(*task, known), tasks))
    _read_sheet.cache_clear()
    atomic.write_json(folder / MANIFEST, entries)
    for path in folder.iterdir():
        if path.name not in entries and path.name != MANIFEST:
            path.unlink()
    return made


def _arrange(folder: Path, kind: str, paths: Iterable[Path | None]) -> Sheets:
    tiles = {}
    for path in filter(None, paths):
        tiles.setdefault(path, len(tiles))
    size = decode(next(iter(tiles))).size if tiles else (1, 1)
    scale = min(1, TILE / max(size))
    box = tuple(max(1, round(side * scale)) for side in size)
    if kind != "mask" and max(size) > LOSSLESS:  # JPEG blocks of two tiles then never meet
        box = tuple(max(8, round(side / 8) * 8) for side in box)
    return Sheets(folder, kind, tiles, box, size)


def _by_sheet(sheets: Sheets) -> Iterable[list[Path]]:
    columns, rows = sheets.grid
    files = list(sheets.tiles)
    return (files[start : start + columns * rows] for start in range(0, len(files), columns * rows))


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
    buffer = BytesIO()
    if mask:
        palette = heat_palette()
        sheet.putpalette(palette[:, :3].tobytes())
        sheet.save(buffer, "png", transparency=palette[:, 3].tobytes())
    elif sheets.suffix == "png":
        sheet.save(buffer, "png")
    else:
        sheet.save(buffer, "jpeg", quality=QUALITY, subsampling=0)
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
