"""What a program does when it is told to stop: by Ctrl-C (SIGINT), or by a cluster (SIGTERM, SIGUSR1).

Within ``handled`` a signal ends the program, SIGINT with exit code 130 and the others with 143: at once or, within
``patient``, after what is in hand. Nothing here imports torch, which takes seconds.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = "interrupted; what was finished is kept, and the same command continues"
GRACE = 20.0  # seconds that pictures in hand may take
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


class Stopped(KeyboardInterrupt):
    """Raised in the main thread for a signal. code: what the program exits with."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = CODES[number]


class StopRequest:
    """asked: the signal that came first, if any; hand: what is to be finished, if anything; soon: in GRACE seconds."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.hand, self.soon = "", True

    def receive(self, number: int, frame=None) -> None:
        """Answer a signal: stop now, or when what is in hand is finished. A second Ctrl-C stops now."""
        first, self.asked = self.asked is None, self.asked or number
        if first and self.hand:
            limit = f", in at most {GRACE:g} s" if self.soon else ""
            line = f"{signal.Signals(number).name}: stopping after {self.hand}{limit}\n"
            with suppress(OSError):  # nobody reads any more
                os.write(2, line.encode())  # the signal may have interrupted a print
            if self.soon:
                signal.setitimer(signal.ITIMER_REAL, GRACE, 1)  # again each second, since a destructor may swallow one
        elif first or number == signal.SIGINT:
            raise Stopped(self.asked)

    def expire(self, number: int, frame=None) -> None:
        """What is in hand took too long."""
        if self.hand and self.asked:
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
def patient(hand: str = "the pictures in hand", *, soon: bool = True) -> Iterator[None]:
    """Within, a signal waits for ``stop_if_asked``, after what is in ``hand``.  soon: but not for long."""
    stop_if_asked()
    request.hand, request.soon = hand, soon
    try:
        yield
    finally:
        request.hand = ""
        if request.asked:
            signal.setitimer(signal.ITIMER_REAL, 0)


def stop_if_asked() -> None:
    """Between two batches.  Raises Stopped if a signal came."""
    if request.asked:
        raise Stopped(request.asked)


def ask(number: int) -> None:
    """As if this signal had come, which came to another process of the work.  number: 0 is none."""
    request.asked = request.asked or number or None


def asked() -> bool:
    """Whether a signal came."""
    return request.asked is not None
