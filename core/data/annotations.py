"""Readers of annotation files.  A line that does not parse is a ValueError with the file and the line's number."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ace_counterfactuals.core.data.folders import require

CELEBA_ATTRIBUTES = 40
SIGNS = frozenset(("1", "-1"))
MAX_CLASSES = 100_000
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
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
        images, categories = content["images"], [entry["category"] for entry in content["annotations"]]
        named = [(str(image["file_name"]), int(image["id"])) for image in images]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}; fetch the file again") from None
    except (KeyError, TypeError, ValueError) as error:
        wanted = '{"images": [{"file_name", "id"}], "annotations": [{"category"}]}'
        raise ValueError(f"{path}: wanted {wanted}, stumbled on {type(error).__name__} {error}") from None
    for place, actions in enumerate(categories):
        if not isinstance(actions, list) or len(actions) not in (4, 5) or not all(a in (0, 1) for a in actions):
            raise ValueError(f"{path}: annotations[{place}]: wanted a category of 4 or 5 of 0 or 1, found {actions}")
    for name, place in named:
        if not 0 <= place < len(categories):
            raise ValueError(f"{path}: {name} has id {place}, but there are {len(categories)} annotations")
    return [(name, categories[place]) for name, place in named]


def csv_labels(path: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(file, label) of each line of a CSV with the columns file and label, and the names of the classes.

    Labels that are all integers are taken as they are, -1 for unknown; else they are names, numbered in sorted order.
    """
    rows = list(_csv_rows(path))
    known: dict[str, tuple[int, str]] = {}
    for number, name, text in rows:
        line, label = known.setdefault(os.path.normpath(name), (number, text))
        if label != text:
            raise ValueError(f"{path}, line {number}: {name} is {text}, and {label} in line {line}; keep one label")
    texts = {text for _, _, text in rows}
    if not all(text.removeprefix("-").isdecimal() for text in texts):
        names = tuple(sorted(texts))
        number_of = {text: place for place, text in enumerate(names)}
        return [(name, number_of[text]) for _, name, text in rows], names
    for number, _, text in rows:
        if len(text) > len(str(MAX_CLASSES)) or not -1 <= int(text) < MAX_CLASSES:
            raise _bad_line(path, number, f"a label of -1 (unknown) to {MAX_CLASSES - 1}, or a name", text)
    labels = [(name, int(text)) for _, name, text in rows]
    return labels, tuple(str(i) for i in range(1 + max((label for _, label in labels), default=-1)))


def _csv_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, file, label)."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not {"file", "label"} <= set(header):
                raise _bad_line(path, 1, "a header with the columns file and label", ",".join(header))
            for fields in filter(None, reader):
                row = dict(zip(header, map(str.strip, fields), strict=False))
                if len(fields) != len(header) or not row["file"] or not row["label"]:
                    raise _bad_line(path, reader.line_num, f"values for {', '.join(header)}", ",".join(fields))
                yield reader.line_num, row["file"], row["label"]
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
