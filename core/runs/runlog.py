"""What a process leaves in ``log/``: its command, when it ran, how it ended, and how long each picture took.

No two processes share a file, and nothing that the results depend on is read from here.
"""

import csv
import itertools
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import host_name, now, owner

RUNNING = "running"


class RunLog:
    """``START-HOST-PID.json`` and ``.csv`` in ``folder``, from entering to leaving the context.

    values: what to keep of the command.
    """

    def __init__(self, folder: Path, values: dict):
        self.folder = folder
        self.values = {"host": host_name(), "pid": os.getpid(), "start": now(), **values}

    def __enter__(self) -> "RunLog":
        name = f"{self.values['start'].replace(':', '').replace('-', '')}-{owner()}"
        names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
        started = self._text(end=None, ended=RUNNING)
        self.path = next(path for n in names if atomic.write_once(path := self.folder / f"{n}.json", started))
        self.file = open(self.path.with_suffix(".csv"), "a", newline="")  # noqa: SIM115 (closed on leaving)
        self.table = csv.writer(self.file, lineterminator="\n")
        self._rows([("index", "seconds")])
        return self

    def timed(self, indices: Iterable[int], seconds: float) -> None:
        """Each of the pictures took so long."""
        self._rows((index, f"{seconds:.3f}") for index in indices)

    def _rows(self, rows: Iterable[tuple]) -> None:
        self.table.writerows(rows)
        self.file.flush()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # after a full disk, what is reported is what came first
            self.file.close()
            ended = " ".join(str(error).split()) or kind.__name__ if kind else "finished"
            atomic.write_bytes(self.path, self._text(end=now(), ended=ended))

    def _text(self, **values) -> bytes:
        return atomic.to_json({**self.values, **values}).encode()
