"""What a program does when it is told to stop: by Ctrl-C (SIGINT), or by a cluster (SIGTERM, SIGUSR1).

Within ``handled`` a signal ends the program, SIGINT with exit code 130 and the others with 143: at once or, within
``patient``, after the pictures in hand. Nothing here imports torch, which takes seconds.
"""

import os
import signal
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


class StopRequest:
    """asked: the signal that came first, if any; patient: whether the pictures in hand are to be finished."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.patient = False

    def receive(self, number: int, frame=None) -> None:
        """Answer a signal: stop now, or give the pictures in hand GRACE seconds. A second Ctrl-C stops now."""
        first, self.asked = self.asked is None, self.asked or number
        if first and self.patient:
            line = f"{signal.Signals(number).name}: stopping after the pictures in hand, in at most {GRACE:g} s\n"
            os.write(2, line.encode())  # the signal may have interrupted a print
            signal.setitimer(signal.ITIMER_REAL, GRACE, 1)  # again each second, since a destructor may swallow one
        elif first or number == signal.SIGINT:
            raise Stopped(self.asked)

    def expire(self, number: int, frame=None) -> None:
        """The pictures in hand took too long."""
        if self.patient:
            raise Stopped(self.asked)


request = StopRequest()


@contextmanager
def handled() -> Iterator[None]:
    """Answer signals within; in threads other than the main one this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    answers = {**dict.fromkeys(CODES, request.receive), signal.SIGALRM: request.expire}
    before = {number: signal.signal(number, answer) for number, answer in answers.items()}
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
        request.asked = None


@contextmanager
def patient() -> Iterator[None]:
    """Within, a signal waits for ``stop_if_asked``, but not for long."""
    stop_if_asked()
    request.patient = True
    try:
        yield
    finally:
        request.patient = False
        if request.asked:
            signal.setitimer(signal.ITIMER_REAL, 0)


def stop_if_asked() -> None:
    """Between two batches.  Raises Stopped if a signal came."""
    if request.asked:
        raise Stopped(request.asked)
