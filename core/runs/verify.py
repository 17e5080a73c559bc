"""Whether a result folder is what its records say; what is not is moved aside, so that the next run does it again."""

from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.notices import now, owner
from ace_counterfactuals.core.runs.begin import read_config
from ace_counterfactuals.core.runs.layout import ResultFolder, decoded, fingerprint, no_such_experiment, pixels_of
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.recording import read_stored
from ace_counterfactuals.core.runs.records import Record, read_record
from ace_counterfactuals.core.runs.tables import read_summary, read_table, summarise

ROUNDING = 1 / 255  # what storing with 8 bits may change of a distance


@dataclass(frozen=True)
class Finding:
    """Something wrong. paths: what to move aside."""

    reason: str
    paths: tuple[Path, ...] = ()


def verify(results: ResultFolder) -> list[Finding]:
    """Check an experiment that nobody is working on, and move aside what is damaged.

    Raises ValueError if the folder is not of main.py, and Locked if somebody is working on it.
    """
    if not results.root.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    if not results.records_folder.is_dir():
        raise ValueError(f"{results.root}: has no records; it is not a folder of main.py")
    flags = read_config(results.root)["flags"]
    with hold(results.log), ThreadPoolExecutor() as pool:
        paths = results.record_paths()
        checked = pool.map(partial(check_record, results), paths)
        progress = tqdm(zip(paths, checked, strict=True), "checking", len(paths), unit="img", disable=None)
        found = {int(path.stem): record for path, record in progress}
        finished = {index: record for index, record in found.items() if isinstance(record, Record)}
        damaged = {index: finding for index, finding in found.items() if isinstance(finding, Finding)}
        findings = [*damaged.values(), *check_strays(results, found)]
        for table in sorted(results.root.glob("*results.csv")):
            summary = table.with_name(table.name.replace("results.csv", "summary.yaml"))
            if fault := check_tables(table, summary, finished, damaged, flags):
                findings.append(Finding(fault, (table, summary)))
        if finished and not results.tables():
            findings.append(Finding("there is no table of the finished pictures; the next run writes it"))
        move_aside(results, findings)
    return findings


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
        originals = [place for place in results.originals(index) if place.exists() and not pixels_of(place)]
        return Finding(str(error), (path, *there, *originals))
    if stale := [place for place in there if place not in allowed]:
        return Finding(f"{stale[0]}: is not where its record says", (path, *there))
    return record


def check_files(results: ResultFolder, record: Record) -> list[Path]:
    """The files of a finished picture.

    Raises ValueError for one that is missing, cut short, of another size, or not as the record says.
    """
    files, place = results.files(record), results.originals(record.index, record.correct)[0]
    original = decoded(place) if record.saved else None
    if original and record.pixels not in ("", fingerprint(original)):
        raise ValueError(f"{place}: is another picture than was explained")
    for (kind, content), path in files.items():
        if content == "Info":
            if not path.exists():
                raise ValueError(f"{path}: is missing")
            if path.read_bytes() != record.info(kind).encode():
                raise ValueError(f"{path}: is not what its record says")
            continue
        picture = decoded(path)
        if picture.size != original.size:
            raise ValueError(f"{path}: is of size {picture.size}, and its original of {original.size}")
        if content == "CF":
            change = np.abs(np.asarray(picture) / 255 - np.asarray(original) / 255).mean()
            if abs(change - record.outcomes[kind].l1) > ROUNDING:
                raise ValueError(f"{path}: differs from its original by {change:.4f}, not as its record says")
    floats = results.floats(record.folder("pre-explanation"), record.index)
    if not (record.saved and floats.exists()):
        return [*files.values()]
    read_stored(floats)
    return [*files.values(), floats]


def check_strays(results: ResultFolder, known: Container[int]) -> Iterator[Finding]:
    """Files that belong to no picture of the ``known``, and temporary ones; other files in the root are left."""
    for folder in (results.root, results.records_folder, *results.leaves()):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            of_a_record = path.stem.isdecimal() and int(path.stem) in known
            temporary = path.name.startswith(".") and path.name.endswith(".tmp")
            if temporary or not (of_a_record or folder == results.root):
                yield Finding(f"{path}: belongs to no finished picture", (path,))


def check_tables(
    table: Path, summary: Path, finished: Mapping[int, Record], damaged: Mapping[int, Finding], flags: dict
) -> str | None:
    """What results.csv and summary.yaml, of the whole or of a chunk, say otherwise than the records."""
    try:
        rows = {int(row["index"]): row for row in read_table(table)}
        told = read_summary(summary)
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{table}, {summary.name}: cannot be read ({' '.join(str(error).split())})"
    if damaged.keys() & rows.keys():
        return None  # both are written anew after the pictures
    for index, row in rows.items():
        if index not in finished or row != finished[index].row():
            return f"{table}: picture {index:07d} is not as its record says"
    if not rows or told != summarise([finished[index] for index in rows], skipped=told["skipped"], flags=flags):
        return f"{summary}: is not the mean over {table.name}"
    return None


def move_aside(results: ResultFolder, findings: list[Finding]) -> None:
    """To ``log/damaged``, a record before its files."""
    aside = results.log / "damaged" / f"{now().replace(':', '')}-{owner()}"
    for path in (path for finding in findings for path in finding.paths if path.exists()):
        base = results.root if path.is_relative_to(results.root) else results.output
        guard.move(path, aside / path.relative_to(base))
