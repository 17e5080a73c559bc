"""Whether a result folder is what its records say; what is not is moved aside, so that the next run does it again."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import notice, now, owner
from ace_counterfactuals.core.base.reading import read_bytes
from ace_counterfactuals.core.runs.described import CONFIG, check_seal, read_config, read_raw, settings_digest, sha256
from ace_counterfactuals.core.runs.layout import (
    TABLE,
    ResultFolder,
    check_png,
    decoded,
    fingerprint,
    most_bytes,
    no_such_experiment,
    pixels_of,
)
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.recording import read_stored
from ace_counterfactuals.core.runs.records import Record, Skipped, parse_record
from ace_counterfactuals.core.runs.sheet import digest_of
from ace_counterfactuals.core.runs.tables import LARGEST_TABLE, read_summary, read_table, summarise

ROUNDING = 1 / 255  # what storing with 8 bits may change of a distance
AGAIN = "the same command makes it again"
MAIN = "main.py's command makes it again"
NEEDLESS = "nothing is to be done"


@dataclass(frozen=True)
class Finding:
    """Something wrong.  reason: begins with the file; paths: what to move aside; remedy: what mends it."""

    reason: str
    paths: tuple[Path, ...] = ()
    remedy: str = AGAIN


@dataclass(frozen=True)
class Checked:
    """What the records turned out to be, by index.  flags: of config.yaml."""

    finished: Mapping[int, Record]
    skipped: Mapping[int, Skipped]
    damaged: Mapping[int, Finding]
    flags: Mapping


def verify(results: ResultFolder) -> list[Finding]:
    """Check an experiment that nobody is working on, and move aside what is damaged.

    Tells of records that are older than their digests.  Raises ValueError if the folder is not of main.py, or a link
    lies where something is to be moved, and Locked if somebody is working on it.
    """
    if not results.root.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    if not results.records_folder.is_dir():
        raise ValueError(f"{results.root}: has no records; it is not a folder of main.py")
    with hold(results.log):
        findings = [*check_config(results)]
        if not findings:
            checked = check_records(results, read_config(results.root))
            findings = [
                *checked.damaged.values(),
                *check_originals(results, checked),
                *check_strays(results, checked),
                *check_tables(results, checked),
            ]
        move_aside(results, findings)
    return findings


def check_config(results: ResultFolder) -> Iterator[Finding]:
    """Without config.yaml as it was, nothing else can be told."""
    path, records = results.root / CONFIG, results.read()[0].values()
    if made_with := {record.settings for record in records} - {""}:
        try:
            check_seal(path)
            if settings_digest(read_raw(path)) not in made_with:
                raise ValueError(f"{path}: is of another experiment than the records")
        except FileNotFoundError:
            yield Finding(f"{path}: is missing")
        except ValueError as error:
            yield Finding(str(error), (path,))
    if old := sum(not record.files for record in records):
        said = "are older than digests: single bits of their Noise, SM and records are not covered"
        notice(f"{old} of {len(records)} records {said}")


def check_records(results: ResultFolder, config: Mapping) -> Checked:
    paths, flags, settings = results.record_paths(), config["flags"], settings_digest(read_raw(results.root / CONFIG))
    with ThreadPoolExecutor() as pool:
        checked = pool.map(partial(check_record, results, flags["image_size"], settings), paths)
        progress = tqdm(zip(paths, checked, strict=True), "checking", len(paths), unit="img", disable=None)
        found = {int(path.stem): record for path, record in progress}
    of_kind = ({i: r for i, r in found.items() if isinstance(r, kind)} for kind in (Record, Skipped, Finding))
    return Checked(*of_kind, flags)


def check_record(results: ResultFolder, side: int, settings: str, path: Path) -> Record | Skipped | Finding:
    """The record, or what is wrong with it or its files.  settings: the digest of those in config.yaml."""
    index = int(path.stem)
    try:
        record = read_as_written(path)
        if isinstance(record, Record):
            if record.settings not in ("", settings):
                raise ValueError(f"{path}: settings: is of another experiment")
            (check_files if record.files else check_old_files)(results, side, record)
        return record
    except ValueError as error:
        return Finding(str(error), (path, *(place for place in results.places(index) if place.exists())))


def read_as_written(path: Path) -> Record | Skipped:
    """A record, to the last byte where it has a digest."""
    data = read_bytes(path)
    record = parse_record(data, path)
    if isinstance(record, Record) and record.files and data != record.to_bytes():
        raise ValueError(f"{path}: is not as it was written")
    return record


def check_files(results: ResultFolder, side: int, record: Record) -> None:
    """Raises ValueError for a file of a finished picture that is not the one that was written with its record."""
    wanted = {results.root / name: digest for name, digest in record.files.items()}
    if {*results.files(record).values()} != {*wanted} - results.numbers(record):
        raise ValueError(f"{results.record(record.index)}: files: are not those of such a record")
    for path, digest in wanted.items():
        if not path.exists():
            raise ValueError(f"{path}: is missing")
        if sha256(read_bytes(path, most_bytes(side))) != digest:
            raise ValueError(f"{path}: is not as it was written")


def check_old_files(results: ResultFolder, side: int, record: Record) -> None:
    """The same of a record without digests, as far as it tells."""
    place = results.originals(record.index, record.correct)[0]
    original = decoded(place, side) if record.saved and pixels_of(place, side) else None
    for (kind, content), path in results.files(record).items():
        if content == "Info":
            if not path.exists():
                raise ValueError(f"{path}: is missing")
            if read_bytes(path) != record.info(kind).encode():
                raise ValueError(f"{path}: is not what its record says")
            continue
        picture = decoded(path, side)
        if content == "CF" and original:
            change = np.abs(np.asarray(picture) / 255 - np.asarray(original) / 255).mean()
            if abs(change - record.outcomes[kind].l1) > ROUNDING:
                raise ValueError(f"{path}: differs from its original by {change:.4f}, not as its record says")
    floats = results.floats(record.folder("pre-explanation"), record.index)
    if record.saved and floats.exists():
        read_stored(floats)


def check_originals(results: ResultFolder, checked: Checked) -> Iterator[Finding]:
    """Stored originals that are not whole, or not the ones that were explained; the next run writes these alone."""
    indices = sorted({*checked.finished, *checked.damaged})
    with ThreadPoolExecutor() as pool:
        yield from chain.from_iterable(pool.map(partial(check_original, results, checked), indices))


def check_original(results: ResultFolder, checked: Checked, index: int) -> list[Finding]:
    """Where it lies; of two experiments that disagree it may for a moment lie in both places."""
    record, findings = checked.finished.get(index), []
    places = results.originals(index, record.correct if record else True)
    for place in [place for place in places if place.exists()] or places[: bool(record and record.saved)]:
        try:
            pixels = fingerprint(decoded(place, checked.flags["image_size"]))
            if record and record.pixels not in ("", pixels):
                raise ValueError(f"{place}: is another picture than was explained")
        except ValueError as error:
            findings.append(Finding(str(error), (place,), MAIN if results.refined else AGAIN))
    return findings


def check_strays(results: ResultFolder, checked: Checked) -> Iterator[Finding]:
    """Files that belong to no picture, and temporary ones; other files in the root are left."""
    known = {*results.record_paths(), *(path for finding in checked.damaged.values() for path in finding.paths)}
    for record in checked.finished.values():
        own = {results.root / name for name in record.files}
        numbers = results.numbers(record) & own if own else results.numbers(record) if record.saved else set()
        known |= {*results.files(record).values(), *numbers}
    for folder in (results.root, results.records_folder, *results.leaves()):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            temporary = path.name.startswith(".") and path.name.endswith(".tmp")
            if temporary or not (path in known or folder == results.root):
                yield Finding(f"{path}: belongs to no finished picture", (path,), NEEDLESS)


def check_tables(results: ResultFolder, checked: Checked) -> Iterator[Finding]:
    """What is wrong with results.csv, summary.yaml and sheet.png, of the whole or of a chunk."""
    prefixes = {path.name.removesuffix(TABLE.fullmatch(path.name)[3]) for path in results.tables()}
    for prefix in sorted(prefixes) if prefixes or not checked.finished else [""]:
        table, summary, sheet = (results.root / f"{prefix}{n}" for n in ("results.csv", "summary.yaml", "sheet.png"))
        if missing := [path for path in (table, summary) if not path.exists()]:
            yield Finding(f"{missing[0]}: is missing")
            continue
        try:
            rows = {int(row["index"]): row for row in read_table(table, "index")}
        except (OSError, ValueError) as error:
            yield Finding(f"{table}: cannot be read ({str(error).removeprefix(f'{table}: ')})", (table,))
            continue
        if checked.damaged.keys() & rows.keys():
            continue  # all are written anew after the pictures
        fault = check_table(table, rows, checked)
        records = [] if fault else [checked.finished[index] for index in rows]
        fault = fault or check_summary(summary, table, records, checked) or check_sheet(sheet, records)
        if fault:
            yield fault


def check_table(table: Path, rows: Mapping[int, dict], checked: Checked) -> Finding | None:
    """Of results.csv, to the last byte where all records have digests."""
    for index, row in rows.items():
        if index not in checked.finished or row != checked.finished[index].row():
            return Finding(f"{table}: picture {index:07d} is not as its record says", (table,))
    records = [checked.finished[index] for index in rows]
    written = [record.row() for record in records]
    covered = bool(records) and all(record.files for record in records)
    if covered and read_bytes(table, LARGEST_TABLE) != atomic.to_csv(written, [*written[0]]).encode():
        return Finding(f"{table}: is not as it was written", (table,))
    return None


def check_summary(summary: Path, table: Path, records: Sequence[Record], checked: Checked) -> Finding | None:
    """Of summary.yaml.  The pictures that were skipped are those beside the records', and may be some behind them."""
    try:
        told = read_summary(summary)
    except (OSError, ValueError) as error:
        return Finding(f"{summary}: cannot be read ({str(error).removeprefix(f'{summary}: ')})", (summary,))
    chunk, chunks = map(int, TABLE.fullmatch(summary.name).group(1, 2)) if "_" in summary.name else (0, 1)
    skipped = [index for index in checked.skipped if index % chunks == chunk]
    last = max((record.index for record in records), default=-1)
    possible = range(sum(index < last for index in skipped), len(skipped) + 1)
    wanted = summarise(records, skipped=told["skipped"], flags=checked.flags)
    if "weak flips" not in told:
        wanted.pop("weak flips", None)  # the summary is older than they are
    covered = all(record.files for record in records) and atomic.to_yaml(wanted).encode() != read_bytes(summary)
    if not records or told != wanted or told["skipped"] not in possible or covered:
        return Finding(f"{summary}: is not the mean over {table.name}", (table, summary))
    return None


def check_sheet(sheet: Path, records: Sequence[Record]) -> Finding | None:
    """Of sheet.png, which is there where pictures were saved, and tells of which records it is."""
    if not sheet.exists():
        return Finding(f"{sheet}: is missing") if all(record.saved for record in records) else None
    try:
        check_png(data := read_bytes(sheet, LARGEST_TABLE))
        told = b"tEXtrecords\0" in data or all(record.files for record in records)
        if told and digest_of(records).encode() not in data:
            raise ValueError("is of other records")
    except ValueError as error:
        return Finding(f"{sheet}: {str(error).removeprefix(f'{sheet}: ')}", (sheet,))
    return None


def move_aside(results: ResultFolder, findings: Sequence[Finding]) -> None:
    """To ``log/damaged``, a record before its files; nothing where a link is in the way."""
    aside = results.log / "damaged" / f"{now().replace(':', '')}-{owner()}"
    paths = [path for finding in findings for path in finding.paths if path.exists()]
    guard.refuse_links(paths)
    for path in paths:
        base = results.root if path.is_relative_to(results.root) else results.output
        guard.move(path, aside / path.relative_to(base))
