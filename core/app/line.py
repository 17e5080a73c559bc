"""A line of computations: one at a time, in the order in which they were asked for, each as long as someone watches."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ace_counterfactuals.core.base.notices import notice

GRACE = 5.0  # seconds without anyone who watches, after which a computation ends: a closed tab, not a lost packet
KEPT = 60  # finished computations whose results are there; older ones are dropped
WAITING = 100  # at once


class Cancelled(Exception):
    """Somebody stopped the computation, or nobody watches it any more."""


class Full(ValueError):
    """Too many computations wait."""


@dataclass(eq=False)
class Job:
    """A computation.  asked: what is computed; told: what is known of it while it runs, replaced and never changed.

    state: waiting, running, done, failed or cancelled.  result: of ``do``; error: a sentence.
    """

    id: str
    asked: Any
    state: str = "waiting"
    told: dict = field(default_factory=dict)
    curve: list = field(default_factory=list)
    picture: bytes = b""
    result: Any = None
    error: str = ""
    watchers: int = 0
    left: float = field(default_factory=time.monotonic)
    stopped: bool = False

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "running")

    def check(self) -> None:
        """Raises Cancelled."""
        if self.stopped or (not self.watchers and time.monotonic() - self.left > GRACE):
            raise Cancelled

    def watch(self) -> None:
        self.watchers += 1

    def leave(self) -> None:
        self.watchers -= 1
        self.left = time.monotonic()


class Line:
    """do: computes what a job asks, and calls its ``check`` often; drop: frees what a result holds; first: is called
    before the first job, in its thread."""

    def __init__(self, do: Callable[[Job], Any], drop: Callable[[Any], None], first: Callable[[], None] = lambda: None):
        self.do, self.drop_result, self.first = do, drop, first
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.news, self.numbers, self.closed = threading.Condition(), count(1), False
        self.thread = threading.Thread(target=self._work, name="explain", daemon=True)
        self.thread.start()

    def ask(self, asked: Any) -> Job:
        """Get in line.  Raises Full."""
        with self.news:
            if self.closed or sum(job.state == "waiting" for job in self.jobs.values()) >= WAITING:
                raise Full(f"{WAITING} computations wait already; try again later")
            job = Job(f"{next(self.numbers):04d}", asked)
            self.jobs[job.id] = job
            over = [other for other in self.jobs.values() if other.over]
            self.news.notify_all()
        for other in over[: max(0, len(over) - KEPT)]:
            self.drop(other.id)
        return job

    def place(self, job: Job) -> int:
        """How many are before it: 0 is the next, or the one that is computed."""
        with self.news:
            before = [other.id for other in self.jobs.values() if not other.over]
            return before.index(job.id) if job.id in before else 0

    def stop(self, job: Job) -> None:
        """Within an iteration."""
        with self.news:
            job.stopped = True
            if job.state == "waiting":
                job.state = "cancelled"

    def drop(self, name: str) -> None:
        """Stop a computation, and forget it and its result."""
        with self.news:
            job = self.jobs.pop(name, None)
        if job:
            self.stop(job)
            self._free(job)

    def close(self) -> None:
        """Stop all."""
        with self.news:
            self.closed = True
            self.news.notify_all()
        for job in [*self.jobs.values()]:
            self.stop(job)
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def _free(self, job: Job) -> None:
        result, job.result = job.result, None
        if result is not None:
            self.drop_result(result)

    def _next(self) -> Job | None:
        with self.news:
            while not self.closed:
                waiting = next((job for job in self.jobs.values() if job.state == "waiting"), None)
                if waiting:
                    waiting.state = "running"
                    return waiting
                self.news.wait()
        return None

    def _work(self) -> None:
        self.first()
        while job := self._next():
            try:
                job.check()
                job.result = self.do(job)
                job.state = "done"
            except Cancelled:
                job.state = "cancelled"
            except Exception as error:  # whatever it is, the next in line is computed
                job.error = " ".join(str(error).split()) or type(error).__name__
                if not isinstance(error, ValueError | OSError | FloatingPointError):
                    notice(f"a computation failed: {type(error).__name__}: {job.error}")
                job.state = "failed"
            job.picture = b""
            if job.id not in self.jobs:
                self._free(job)
