"""What a process leaves in ``log/``: its command, when it ran, how it ended, and how long each picture took.

No two processes share a file, and nothing that the results depend on is read from here.
"""

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import host_name, now, owner

RUNNING = "running"
RECENT = 50  # pictures that a process's speed is measured on


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
        with open(path.with_suffix(".csv"), "a") as file:
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


def read_logs(folder: Path) -> Iterator[tuple[Path, dict]]:
    """What each process logged of itself, the latest first; files that cannot be read are left out."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        with suppress(OSError, ValueError):
            yield path, json.loads(path.read_bytes())


def selected_pictures(folder: Path) -> int:
    """How many pictures the latest command asked for, all chunks together, by the logs in ``folder``; 0 if unknown."""
    return next((log["selected"] for _, log in read_logs(folder) if "selected" in log), 0)


def images_per_minute(folder: Path, host: str, pid: int) -> float:
    """Of a running process, over its latest pictures; 0 if unknown."""
    own = (path for path, log in read_logs(folder) if (log["host"], log["pid"], log["ended"]) == (host, pid, RUNNING))
    with suppress(StopIteration, FileNotFoundError), open(next(own).with_suffix(".csv"), newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2 and row[1]]  # the last may be half written
        seconds = [float(row[1]) for row in rows[1:][-RECENT:]]
        return 60 * len(seconds) / sum(seconds) if sum(seconds) else 0.0
    return 0.0
