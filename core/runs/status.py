"""What a process leaves in ``log/``, and the state of an experiment that it tells (``--status True``).

A log holds the command, when it ran, how it ended, and how long each picture took. No two processes share a file, and
nothing that the results depend on is read from here. Nothing here imports torch.
"""

import csv
import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import host_name, notice, now, owner
from ace_counterfactuals.core.base.reading import read_json, read_text
from ace_counterfactuals.core.base.schema import Count, checked
from ace_counterfactuals.core.runs import locks
from ace_counterfactuals.core.runs.layout import ResultFolder, no_such_experiment

RUNNING = "running"
LARGEST_LOG = 2**26  # bytes of a process's times
RECENT = 50  # pictures that a process's speed is measured on


@dataclass(frozen=True)
class Log:
    """What a process tells of itself, as far as it is read.  selected: pictures of all chunks."""

    OPEN: ClassVar = True
    host: str
    pid: Count
    ended: str
    end: str | None = None
    selected: Count | None = None
    threads: Count | None = None


@contextmanager
def run_log(folder: Path, told: dict) -> Iterator[Callable[[Iterable[int], float], None]]:
    """``START-HOST-PID.json`` and ``.csv`` in ``folder``, from entering to leaving.

    told: what to keep of the command.  Yields a function that takes pictures' indices, and the seconds of each.
    """
    values = {"host": host_name(), "pid": os.getpid(), "start": now(), **told, "end": None, "ended": RUNNING}
    name = f"{values['start'].replace(':', '').replace('-', '')}-{owner()}"
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    started = atomic.to_json(values).encode()
    path = next(path for n in names if atomic.write_once(path := folder / f"{n}.json", started))

    def add(lines: Iterable[str]) -> None:
        with guard.open_to_write(path.with_suffix(".csv"), "a") as file:
            file.writelines(lines)

    add(["index,seconds\n"])
    ended = "finished"
    try:
        yield lambda indices, seconds: add(f"{index},{seconds:.3f}\n" for index in indices)
    except BaseException as error:
        ended = " ".join(str(error).split()) or type(error).__name__
        raise
    finally:
        with suppress(OSError):  # after a full disk, what is reported is what came first
            atomic.write_json(path, {**values, "end": now(), "ended": ended})


def read_logs(folder: Path) -> Iterator[tuple[Path, Log]]:
    """What each process logged of itself, the latest first; what cannot be read is left out, with a notice."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            yield path, checked(Log, read_json(path), path)
        except (OSError, ValueError) as error:
            notice(f"{error}; this log is left out")


def selected_pictures(folder: Path) -> int:
    """How many pictures the latest command asked for, all chunks together, by the logs in ``folder``; 0 if unknown."""
    return next((log.selected for _, log in read_logs(folder) if log.selected is not None), 0)


def images_per_minute(folder: Path, holder: locks.Holder) -> float:
    """Of a running process, over its latest pictures; 0 if unknown."""
    running = (holder.host, holder.pid, RUNNING)
    own = (path for path, log in read_logs(folder) if running == (log.host, log.pid, log.ended))
    with suppress(StopIteration, OSError, ValueError, csv.Error):
        file = io.StringIO(read_text(next(own).with_suffix(".csv"), LARGEST_LOG))
        rows = [row for row in csv.reader(file) if len(row) == 2 and row[1]]  # the last may be half written
        seconds = [float(row[1]) for row in rows[1:][-RECENT:]]
        return 60 * len(seconds) / sum(seconds) if 0 < sum(seconds) < math.inf else 0.0
    return 0.0


def status(results: ResultFolder) -> str:
    """The state of an experiment in a few lines; processes on other hosts are listened to for a moment.

    Raises FlagError if there is none.
    """
    if not results.records_folder.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    finished, skipped = results.read_whole()
    latest = selected_pictures(results.log)
    selected = max(latest, len(finished) + len(skipped)) if latest else 0
    missing = max(selected - len(finished) - len(skipped), 0)
    counts = f"{len(finished)} of {selected} pictures done" if selected else f"{len(finished)} pictures done"
    lines = [f"{results.root}: {counts}, {len(skipped)} skipped, {missing} missing"]

    listening, per_minute = 1.5 * locks.BEAT, 0.0
    alive = {holder: holder.alive() for holder in locks.holders(results.log)}
    alive |= dict.fromkeys(locks.listen([holder for holder in alive if alive[holder] is None], listening), True)
    for holder, lives in alive.items():
        speed = images_per_minute(results.log, holder) if lives else 0.0
        per_minute += speed
        said = {True: "alive", False: "gone", None: f"silent for {listening:g} s"}[lives]
        shown = f", {speed:.1f} images/min" if speed else ""
        lines.append(f"chunk {holder.chunk} of {holder.chunks}: {holder}: {said}{shown}")
    if not any(alive.values()):
        lines.append("nothing is running")
    if finished:
        flips = sum(record.outcomes["explanation"].success for record in finished.values())
        lines.append(f"flip rate so far {flips / len(finished):.3f} ({flips} of {len(finished)})")
    if per_minute:
        lines.append(f"{per_minute:.1f} images/min, {duration(60 * missing / per_minute)} left at this speed")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """'42 s', '7 min' or '3 h 20 min'."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
