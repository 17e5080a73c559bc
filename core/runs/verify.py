"""Whether a result folder is what its records say; what is not is moved aside, so that the next run does it again."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ace_counterfactuals.core.base.notices import now, owner
from ace_counterfactuals.core.runs.begin import read_config
from ace_counterfactuals.core.runs.layout import ResultFolder, fingerprint, no_such_experiment
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.records import Record, read_record
from ace_counterfactuals.core.runs.tables import read_summary, read_table, summarise

ROUNDING = 1 / 255  # what storing with 8 bits may change of a distance


@dataclass(frozen=True)
class Finding:
    """Something wrong. damaged: the picture to do again; paths: what to move aside."""

    reason: str
    paths: tuple[Path, ...] = ()
    damaged: int | None = None


def verify(results: ResultFolder) -> list[Finding]:
    """Check an experiment that nobody is working on, and move aside what is damaged.

    Raises ValueError if the folder is not of main.py, and Locked if somebody is working on it.
    """
    if not results.root.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    if not results.records_folder.is_dir():
        raise ValueError(f"{results.root}: has no records; it is not a folder of main.py")
    flags = read_config(results.root)["flags"]
    with hold(results.log):
        finished, skipped, findings = check_records(results)
        damaged = {finding.damaged for finding in findings}
        findings += check_strays(results, finished.keys() | skipped | damaged)
        for table in sorted(results.root.glob("*results.csv")):
            findings += check_tables(table, table.with_name(table.name.replace("results.csv", "summary.yaml")),
                                     finished, damaged, flags)  # fmt: skip
        if finished and not list(results.tables()):
            findings.append(Finding("there is no table of the finished pictures; the next run writes it"))
        move_aside(results, findings)
    return findings


def check_records(results: ResultFolder) -> tuple[dict[int, Record], set[int], list[Finding]]:
    """The finished pictures, the indices of the skipped ones, and what is damaged, which is neither."""
    finished, skipped, findings = {}, set(), []
    paths = results.record_paths()
    with ThreadPoolExecutor() as pool:
        for path, found in zip(paths, tqdm(pool.map(lambda path: check_record(results, path), paths), "checking",
                                           len(paths), unit="img", disable=None), strict=True):  # fmt: skip
            if isinstance(found, Finding):
                findings.append(found)
            elif isinstance(found, Record):
                finished[found.index] = found
            else:
                skipped.add(int(path.stem))
    return finished, skipped, findings


def check_record(results: ResultFolder, path: Path) -> Record | Finding | None:
    """The record, what is wrong with it or its files, or None where it is of a skipped picture."""
    index = int(path.stem)
    there = [place for place in results.places(index) if place.exists()]
    try:
        record = read_record(path)
        if not isinstance(record, Record):
            return None
        allowed = check_files(results, record)
    except ValueError as error:
        return Finding(str(error), (path, *there, *undecodable(results, index)), index)
    if stale := [place for place in there if place not in allowed]:
        return Finding(f"{stale[0]}: is not where its record says", (path, *there), index)
    return record


def check_files(results: ResultFolder, record: Record) -> set[Path]:
    """The files of a finished picture.

    Raises ValueError for one that is missing, cut short, of another size, or not as the record says.
    """
    files, floats = results.files(record), results.floats(record.folder("pre-explanation"), record.index)
    original = decoded(results.originals(record.index)) if record.saved else None
    if original and record.pixels not in ("", fingerprint(original)):
        raise ValueError(f"{results.original(record.index, record.correct)}: is another picture than was explained")
    for (kind, content), path in files.items():
        if content == "Info":
            if not path.exists():
                raise ValueError(f"{path}: is missing")
            if path.read_bytes() != record.info(kind).encode():
                raise ValueError(f"{path}: is not what its record says")
            continue
        picture = decoded([path])
        if picture.size != original.size:
            raise ValueError(f"{path}: is of size {picture.size}, and its original of {original.size}")
        if content == "CF":
            change = np.abs(np.asarray(picture) / 255 - np.asarray(original) / 255).mean()
            if abs(change - record.outcomes[kind].l1) > ROUNDING:
                raise ValueError(f"{path}: differs from its original by {change:.4f}, not as its record says")
    if not (record.saved and floats.exists()):
        return {*files.values()}
    try:
        np.load(floats, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{floats}: cannot be read ({error})") from None
    return {*files.values(), floats}


def decoded(paths: Sequence[Path]) -> Image.Image:
    """The first of the pictures that exists.  Raises ValueError if none does, or it is not whole."""
    path = next(filter(Path.exists, paths), None)
    if path is None:
        raise ValueError(f"{paths[0]}: is missing")
    try:
        data = io.BytesIO(path.read_bytes())
        Image.open(data, formats=["PNG"]).verify()  # checksums, to the last byte; decoding does not look at them
        picture = Image.open(data, formats=["PNG"])
        picture.load()
        return picture
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error})") from None


def undecodable(results: ResultFolder, index: int) -> Iterator[Path]:
    """Stored originals that are not whole; others' may be, and stay for them."""
    for path in filter(Path.exists, results.originals(index)):
        try:
            decoded([path])
        except ValueError:
            yield path


def check_strays(results: ResultFolder, known: set[int]) -> Iterator[Finding]:
    """Files that belong to no picture of the ``known``, and temporary ones; other files in the root are left."""
    for folder in (results.root, results.records_folder, *results.leaves()):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            of_a_record = path.stem.isdecimal() and int(path.stem) in known
            temporary = path.name.startswith(".") and path.name.endswith(".tmp")
            if temporary or not (of_a_record or folder == results.root):
                yield Finding(f"{path}: belongs to no finished picture", (path,))


def check_tables(
    table: Path, summary: Path, finished: dict[int, Record], damaged: set[int], flags: dict
) -> Iterator[Finding]:
    """Whether results.csv and summary.yaml, of the whole or of a chunk, say what the records say."""
    try:
        rows = {int(row["index"]): row for row in read_table(table)}
        told = read_summary(summary)
    except (OSError, ValueError, TypeError, KeyError) as error:
        yield Finding(f"{table}, {summary.name}: cannot be read ({' '.join(str(error).split())})", (table, summary))
        return
    if damaged & rows.keys():
        return  # both are written anew after the pictures
    for index, row in rows.items():
        if index not in finished or row != as_text(finished[index].row()):
            yield Finding(f"{table}: picture {index:07d} is not as its record says", (table, summary))
            return
    if not rows or told != summarise([finished[index] for index in rows], skipped=told["skipped"], flags=flags):
        yield Finding(f"{summary}: is not the mean over {table.name}", (table, summary))


def as_text(row: dict) -> dict:
    """As it comes back from a CSV file."""
    return {name: "" if value is None else str(value) for name, value in row.items()}


def move_aside(results: ResultFolder, findings: list[Finding]) -> None:
    """To ``log/damaged``, a record before its files."""
    aside = results.log / "damaged" / f"{now().replace(':', '')}-{owner()}"
    for path in (path for finding in findings for path in finding.paths):
        base = results.root if path.is_relative_to(results.root) else results.output
        target = aside / path.relative_to(base)
        if path.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
