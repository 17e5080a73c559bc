"""Importing this makes Ctrl-C one line from here on; ``handled`` answers the signals of a person and of a cluster.

SIGINT ends a program with 130, SIGTERM and SIGUSR1 with 143, at once or, where it is ``patient``, after the pictures in
hand. Nothing here imports torch, which takes seconds.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = "interrupted; what was finished is kept, and the same command continues"
GRACE = 20.0  # seconds that the pictures in hand may take
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


class Stopped(KeyboardInterrupt):
    """Raised in the main thread for a signal. code: what the program exits with."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = CODES[number]


class Desk:
    """asked: the signal that came first; patient: whether the pictures in hand are to be finished."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.patient = False

    def receive(self, number: int, frame=None) -> None:
        first, self.asked = self.asked is None, self.asked or number
        if first and self.patient:
            say(f"{signal.Signals(number).name}: stopping after the pictures in hand, in at most {GRACE:g} s")
            signal.setitimer(signal.ITIMER_REAL, GRACE, 1)  # again each second, since a destructor may swallow one
        elif first or number == signal.SIGINT:
            raise Stopped(self.asked)

    def expire(self, number: int, frame=None) -> None:
        if self.patient:
            raise Stopped(self.asked)


desk = Desk()


@contextmanager
def handled() -> Iterator[None]:
    """Answer signals within; in threads other than the main one this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    answers = {**dict.fromkeys(CODES, desk.receive), signal.SIGALRM: desk.expire}
    before = {number: signal.signal(number, answer) for number, answer in answers.items()}
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
        desk.asked = None


@contextmanager
def patient() -> Iterator[None]:
    """Within, a signal waits for ``stop_if_asked``, but not for long."""
    stop_if_asked()
    desk.patient = True
    try:
        yield
    finally:
        desk.patient = False
        if desk.asked:
            signal.setitimer(signal.ITIMER_REAL, 0)


def stop_if_asked() -> None:
    """Between two batches.  Raises Stopped if a signal came."""
    if desk.asked:
        raise Stopped(desk.asked)


def say(line: str) -> None:
    """To stderr from within a signal handler, which may have interrupted a print."""
    os.write(2, f"{line}\n".encode())


def excepthook(kind, error, trace) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = excepthook
