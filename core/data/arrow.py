"""Hugging Face's data sets on disk: tables of pictures and labels, in parquet or as ``save_to_disk`` writes them."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from ace_counterfactuals.core.base.reading import parse_json
from ace_counterfactuals.core.base.settings import FlagError, did_you_mean
from ace_counterfactuals.core.data.annotations import MAX_CLASSES, Columns
from ace_counterfactuals.core.data.folders import first, found
from ace_counterfactuals.core.data.specs import UNKNOWN, Listing, PictureFile

LARGEST = 2**30  # bytes of the pictures that are read at once
SHARD = re.compile(r"(.+)-\d+-of-\d+")


@dataclass(frozen=True)
class Embedded:
    """Gives the bytes of a picture whose path is a table's and, below it, the number of a row."""

    column: str

    def __call__(self, path: Path) -> bytes:
        file, row = path.parent, int(path.name)
        with reading(file):
            starts = _starts(file)
            part = bisect_right(starts, row) - 1
            cell = _part(file, self.column, part)[row - starts[part]].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise ValueError("the table has no bytes of this picture, but the name of a file at most")
        return data


def read(folder: Path, columns: Columns) -> Listing:
    """The pictures of a split, its labels numbered as the table says, or in sorted order.

    Raises ValueError, and FlagError for a column or a split that is not there.
    """
    files = _files(folder, columns.split)
    with reading(files[0]):
        schema = _schema(files[0])
    image = _image_column(files[0], schema, columns.image)
    label = columns.labels[0] if columns.labels else ""
    if label and label not in schema.names:
        there = f"{files[0]} has {first(schema.names, 20)}{did_you_mean(label, schema.names)}; '' is none"
        raise FlagError("csv_label", f"{label}: no such column: {there}")
    records, given = list[Path](), list[Any]()
    for file in files:
        with reading(file):
            rows = _starts(file)[-1]
            given += _values(file, label) if label else [None] * rows
        records += [file / f"{row:07d}" for row in range(rows)]
    numbers, names = _numbered(given, _names(files[0], schema, label), f"{files[0]}, column {label}")
    pictures = [PictureFile(i, path, n) for i, (path, n) in enumerate(zip(records, numbers, strict=True))]
    return Listing(records=pictures, class_names=names, content=Embedded(image))


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Within, whatever pyarrow stumbles on is a ValueError about the file."""
    arrow = pyarrow()
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read ({' '.join(str(error).split())})") from None


def pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError("needs a package that is not installed: pip install pyarrow") from None
    return pyarrow


def _files(folder: Path, split: tuple[str, str] | None) -> list[Path]:
    """Of the split, in order; of the only one, if there is one."""
    there = [
        path
        for pattern in ("*.parquet", "data-*.arrow")
        for depth in ("", "*/")
        for path in folder.glob(depth + pattern)
    ]
    splits: dict[str, list[Path]] = {}
    for path in sorted(there):
        shard, inner = SHARD.fullmatch(path.stem), path.parent != folder
        parquet = path.suffix == ".parquet"
        name = shard[1] if parquet and shard else path.parent.name if inner or not parquet else path.stem
        splits.setdefault(name, []).append(path)
    if not splits:
        raise ValueError(f"{folder}: wanted .parquet files, or what save_to_disk wrote; {found(folder)}")
    if split is None and len(splits) == 1:
        return [path for paths in splits.values() for path in paths]
    column, name = split or ("split", "")
    if column != "split" or name not in splits:
        hint = did_you_mean(name, splits)
        raise FlagError("csv_split", f"{column}={name}: {folder} has split={', split='.join(splits)}; give one{hint}")
    return splits[name]


def _schema(file: Path) -> Any:
    if file.suffix == ".parquet":
        return pyarrow().parquet.read_schema(file)
    with pyarrow().memory_map(str(file)) as source:
        return pyarrow().ipc.open_stream(source).schema


def _image_column(file: Path, schema: Any, wanted: str) -> str:
    """The one that is named or, where that is the default, the first that holds pictures."""
    if wanted in schema.names:
        return wanted
    types, of = pyarrow().types, schema.field
    holding = [
        name
        for name in schema.names
        if types.is_binary(of(name).type)
        or (types.is_struct(of(name).type) and of(name).type.get_field_index("bytes") >= 0)
    ]
    if wanted != Columns().image or not holding:
        hint = did_you_mean(wanted, schema.names)
        raise FlagError("csv_image", f"{wanted}: no such column: {file} has {first(schema.names, 20)}{hint}")
    return holding[0]


def _names(file: Path, schema: Any, label: str) -> tuple[str, ...] | None:
    """Of the classes, where the table tells them."""
    said = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = parse_json(said, file)["info"]["features"][label]["names"]
    except (KeyError, TypeError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        return None
    return tuple(names)


def _numbered(
    given: Sequence[Any], names: tuple[str, ...] | None, where: str
) -> tuple[list[int], tuple[str, ...] | None]:
    """Labels as numbers, and the names of the classes.  Raises ValueError for what is no label."""
    known = [value for value in given if value is not None]
    if known and all(isinstance(value, str) for value in known):
        names = tuple(sorted({*known}))
        place = {name: i for i, name in enumerate(names)}
        return [UNKNOWN if value is None else place[value] for value in given], names
    end = len(names) if names else MAX_CLASSES
    for value in known:
        if type(value) is not int or not -1 <= value < end:
            raise ValueError(f"{where}: wanted classes of -1 (unknown) to {end - 1}, or names, found {str(value)[:60]}")
    if names is None and known:
        names = tuple(str(i) for i in range(1 + max(known)))
    return [UNKNOWN if value is None else value for value in given], names or None


def _values(file: Path, column: str) -> list[Any]:
    """Of all rows."""
    if file.suffix == ".parquet":
        return pyarrow().parquet.read_table(file, columns=[column])[column].to_pylist()
    return _part(file, column, 0).to_pylist()


@lru_cache(maxsize=256)
def _starts(file: Path) -> list[int]:
    """The first row of each part of a table that is read at once, and the number of its rows."""
    if file.suffix != ".parquet":
        return [0, _stream(file).num_rows]
    told = pyarrow().parquet.read_metadata(file)
    return [*accumulate((told.row_group(i).num_rows for i in range(told.num_row_groups)), initial=0)]


@lru_cache(maxsize=256)
def _stream(file: Path) -> Any:
    """A table that stays on the disk."""
    return pyarrow().ipc.open_stream(pyarrow().memory_map(str(file))).read_all()


@lru_cache(maxsize=256)
def _column(file: Path, name: str) -> Any:
    whole = _stream(file)[name]
    whole.validate(full=True)  # without which a damaged table ends the process
    return whole


@lru_cache(maxsize=4)
def _part(file: Path, column: str, number: int) -> Any:
    """A column of pictures, of one row group of a parquet file or of all of another."""
    if file.suffix != ".parquet":
        return _column(file, column)
    leaf = f"{column}.bytes" if pyarrow().types.is_struct(_schema(file).field(column).type) else column
    opened = pyarrow().parquet.ParquetFile(file, read_dictionary=[leaf])  # what stands there once is kept once
    size = opened.metadata.row_group(number).total_byte_size
    if size > LARGEST:
        raise ValueError(f"{file}: a row group has {size} bytes; write it with smaller ones")
    return opened.read_row_group(number, columns=[column])[column]
