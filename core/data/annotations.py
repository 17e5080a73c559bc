"""Readers of annotation files.  A line that does not parse is a ValueError with the file and the line's number."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ace_counterfactuals.core.base.reading import read_json
from ace_counterfactuals.core.base.settings import FlagError, did_you_mean
from ace_counterfactuals.core.data.folders import first, require

CELEBA_ATTRIBUTES = 40
SIGNS = frozenset(("1", "-1"))
DECIDED = {"1": 1, "0": 0, "-1": 0, "true": 1, "false": 0, "yes": 1, "no": 0}
MAX_CLASSES = 100_000
LARGEST_JSON = 2**28  # bytes
PARTITIONS = "list_eval_partition.csv"


@dataclass(frozen=True)
class Faces:
    """CelebA or CelebA-HQ as annotated.

    rows: picture name and its 40 values "1" or "-1", in the file's order, read as they are taken.
    partition: picture name -> 0 (train), 1 (validation) or 2 (test).
    """

    pictures: Path
    attributes: tuple[str, ...]
    rows: Iterator[tuple[str, list[str]]]
    partition: dict[str, int]


def celeba(folder: Path) -> Faces:
    """list_attr_celeba.csv and list_eval_partition.csv."""
    pictures, table = "img_align_celeba/", "list_attr_celeba.csv"
    require(folder, pictures, table, PARTITIONS)
    return Faces(folder / pictures, *_attributes(folder / table, ","), _partitions(folder / PARTITIONS))


def celebahq(folder: Path) -> Faces:
    """CelebAMask-HQ-attribute-anno.txt, and CelebA's partitions through CelebA-HQ-to-CelebA-mapping.txt."""
    pictures, table, mapping = "CelebA-HQ-img/", "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"
    require(folder, pictures, table, mapping, PARTITIONS)
    of_celeba, originals = _partitions(folder / PARTITIONS), _mapping(folder / mapping)
    partition = {f"{index}.jpg": of_celeba[original] for index, original in originals if original in of_celeba}
    return Faces(folder / pictures, *_attributes(folder / table, None, above=1), partition)


def bdd_oia(path: Path) -> list[tuple[str, list[int]]]:
    """(file name, actions) of every picture, in the file's order; the actions are 4 or 5 of 0 or 1."""
    content = read_json(path, LARGEST_JSON)
    try:
        images, categories = content["images"], [entry["category"] for entry in content["annotations"]]
        named = [(str(image["file_name"]), int(image["id"])) for image in images]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        wanted = '{"images": [{"file_name", "id"}], "annotations": [{"category"}]}'
        raise ValueError(f"{path}: wanted {wanted}, stumbled on {type(error).__name__} {error}") from None
    for place, actions in enumerate(categories):
        if not isinstance(actions, list) or len(actions) not in (4, 5) or not all(a in (0, 1) for a in actions):
            raise ValueError(f"{path}: annotations[{place}]: wanted a category of 4 or 5 of 0 or 1, found {actions}")
    for name, place in named:
        if not 0 <= place < len(categories):
            raise ValueError(f"{path}: {name} has id {place}, but there are {len(categories)} annotations")
    return [(name, categories[place]) for name, place in named]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a table tells of pictures.

    file: the table, in the data folder.  image: the column of their file names.  labels: the column of their classes,
    or several of attributes; none where it tells of no labels.  split: a column and the value of the rows to take.
    """

    file: str = "labels.csv"
    image: str = "file"
    labels: tuple[str, ...] = ("label",)
    split: tuple[str, str] | None = None


@dataclass(frozen=True)
class Row:
    """Of a table: its line, the picture's file, its labels as they stand there, and whether the split takes it."""

    line: int
    image: str
    labels: tuple[str, ...]
    taken: bool


def csv_rows(path: Path, columns: Columns) -> list[Row]:
    """All rows of a table; one file has the same labels in each.  Raises FlagError for a column that is not there."""
    rows, known, values = [], dict[str, Row](), set()
    column, value = columns.split or ("", "")
    for line, row in _csv_lines(path, columns):
        values.add(row.get(column, ""))
        labels = tuple(row[name] for name in columns.labels)
        rows.append(Row(line, os.path.normpath(row[columns.image]), labels, row.get(column, "") == value))
        before = known.setdefault(rows[-1].image, rows[-1])
        if before.labels != labels:
            said = f"{row[columns.image]} is {', '.join(labels)}, and {', '.join(before.labels)} in line {before.line}"
            raise ValueError(f"{path}, line {line}: {said}; keep one label")
    if rows and not any(row.taken for row in rows):
        there = f"{path} has none of this {column}{did_you_mean(value, values)}; there are {first(sorted(values), 8)}"
        raise FlagError("csv_split", f"{column}={value}: {there}")
    return rows


def classes_of(path: Path, rows: Sequence[Row]) -> tuple[dict[tuple[str, ...], int], tuple[str, ...]]:
    """The number of each label of the rows, whatever the split takes, and the names of the classes.

    Labels that are all integers are taken as they are, -1 for unknown; else they are names, numbered in sorted order.
    """
    lines = {row.labels: row.line for row in reversed(rows)}
    if not all(text.removeprefix("-").isdecimal() for (text,) in lines):
        order = sorted(lines)
        return {labels: place for place, labels in enumerate(order)}, tuple(text for (text,) in order)
    for (text,), line in lines.items():
        if len(text) > len(str(MAX_CLASSES)) or not -1 <= int(text) < MAX_CLASSES:
            raise _bad_line(path, line, f"a label of -1 (unknown) to {MAX_CLASSES - 1}, or a name", text)
    numbers = {labels: int(labels[0]) for labels in lines}
    return numbers, tuple(str(i) for i in range(1 + max(numbers.values(), default=-1)))


def attributes_of(path: Path, rows: Sequence[Row]) -> dict[Row, tuple[int, ...]]:
    """0 or 1 for each label of each row."""
    for row in rows:
        if odd := [text for text in row.labels if text.lower() not in DECIDED]:
            raise _bad_line(path, row.line, f"attributes of {', '.join(DECIDED)}", odd[0])
    return {row: tuple(DECIDED[text.lower()] for text in row.labels) for row in rows}


def _csv_lines(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number, and the values by column; there are some in each column that is named."""
    split = [columns.split[0]] if columns.split else []
    asked = [
        ("csv_image", columns.image),
        *(("csv_label", n) for n in columns.labels),
        *(("csv_split", n) for n in split),
    ]
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            for flag, name in asked:
                if name not in header:
                    there = f"{path} has {first(header, 20) or 'no columns'}{did_you_mean(name, header)}"
                    raise FlagError(flag, f"{name}: no such column: {there}")
            for fields in filter(None, reader):
                row = dict(zip(header, map(str.strip, fields), strict=False))
                if len(fields) != len(header) or not all(row[n] for n in (columns.image, *columns.labels)):
                    raise _bad_line(path, reader.line_num, f"values for {', '.join(header)}", ",".join(fields))
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines that are not blank."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield number, text


def _bad_line(path: Path, number: int, wanted: str, line: str) -> ValueError:
    shown = line if len(line) <= 80 else f"{line[:77]}..."
    return ValueError(f"{path}, line {number}: wanted {wanted}, found {shown!r}; mend the line or fetch the file again")


def _attributes(path: Path, separator: str | None, above: int = 0) -> tuple[tuple[str, ...], Iterator]:
    """Names of the attributes, ``above`` which lie other lines, and ``Faces.rows``."""
    lines = islice(_lines(path), above, None)
    number, header = next(lines, (above + 1, ""))
    names = tuple(name.strip() for name in header.split(separator))[-CELEBA_ATTRIBUTES:]
    if len(names) != CELEBA_ATTRIBUTES or SIGNS.intersection(names):
        raise _bad_line(path, number, f"the names of {CELEBA_ATTRIBUTES} attributes", header)
    return names, (_signed(path, number, line, separator) for number, line in lines)


def _signed(path: Path, number: int, line: str, separator: str | None) -> tuple[str, list[str]]:
    name, *values = line.split(separator)
    if not SIGNS.issuperset(values):
        values = [value.strip() for value in values]
    if len(values) != CELEBA_ATTRIBUTES or not SIGNS.issuperset(values):
        raise _bad_line(path, number, f"a picture's name and {CELEBA_ATTRIBUTES} values of 1 or -1", line)
    return name.strip(), values


def _partitions(path: Path) -> dict[str, int]:
    partition = {}
    for number, line in _lines(path):
        name, _, part = (text.strip() for text in line.partition(","))
        if name and part in ("0", "1", "2"):
            partition[name] = int(part)
        elif number > 1 or name != "image_id":
            raise _bad_line(path, number, "a picture's name, a comma and a partition of 0, 1 or 2", line)
    return partition


def _mapping(path: Path) -> Iterator[tuple[int, str]]:
    """(index in CelebA-HQ, file name in CelebA)."""
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) == 3 and fields[0].isdecimal():
            yield int(fields[0]), fields[2]
        elif number > 1 or fields[0] != "idx":
            raise _bad_line(path, number, "idx, orig_idx and orig_file", line)
