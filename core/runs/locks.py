"""One process a chunk: a lock that dies with its owner, and how others tell whether it is alive.

The owner holds its file by flock, which its own computer releases when it dies. Where that says nothing, because the
owner is on another host or the file system has no flock, the owner's heart tells: it rewrites a counter in the file
every few seconds. Who waits measures its own monotonic time, so that nobody's clock matters.
"""

import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import host_name, is_running, notice, now, owner
from ace_counterfactuals.core.base.settings import UserError

BEAT = 2.0  # seconds between two beats
PATIENCE = 20.0  # seconds without a beat after which another host's process counts as dead


class Locked(UserError):
    """Another process works on an overlapping chunk."""


@dataclass(frozen=True)
class Holder:
    """A lock file as it was read. born: when its process started, in the kernel's ticks, where that is known."""

    path: Path
    content: bytes
    host: str
    pid: int
    born: int | None
    since: str
    chunk: int
    chunks: int
    flock: bool

    def overlaps(self, chunk: int, chunks: int) -> bool:
        return (self.chunk - chunk) % math.gcd(self.chunks, chunks) == 0

    def alive(self) -> bool | None:
        """None where only its heart can tell."""
        if self.host != host_name():
            return None  # a file server keeps the flock of a computer that has crashed for a while
        if is_held(self.path):
            return True
        return not self.flock and (self.pid == os.getpid() or is_running(self.pid)) and birth(self.pid) == self.born

    def beats(self) -> bool:
        """Whether the file has changed since it was read."""
        try:
            return self.path.read_bytes() != self.content
        except FileNotFoundError:
            return False

    def process(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def __str__(self) -> str:
        return f"{self.process()} (chunk {self.chunk} of {self.chunks})"


def holders(folder: Path) -> list[Holder]:
    """Every lock in a folder, also those of the dead."""
    found = []
    for path in sorted(folder.glob("chunk-*.lock")):
        with suppress(FileNotFoundError):
            found.append(read_holder(path))
    return found


def read_holder(path: Path) -> Holder:
    """What a lock file says; one that says nothing is taken to be a stranger's, for all chunks."""
    content = path.read_bytes()
    with suppress(ValueError, TypeError, KeyError):
        values = json.loads(content)
        del values["beat"]
        return Holder(path, content, **values)
    return Holder(path, content, "an unknown host", 0, None, "an unknown time", 0, 1, False)


def is_held(path: Path) -> bool:
    """Whether somebody holds the file by flock; False says nothing of file systems without it."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def birth(pid: int) -> int | None:
    """When a process started: two of one number in turn differ in it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def listen(watched: list[Holder], seconds: float) -> Iterator[Holder]:
    """Those whose hearts beat within so many seconds, as soon as they do."""
    deadline, silent = time.monotonic() + seconds, list(watched)
    while silent and time.monotonic() < deadline:
        time.sleep(BEAT / 8)
        for holder in [holder for holder in silent if holder.beats()]:
            silent.remove(holder)
            yield holder


@contextmanager
def hold(folder: Path, chunk: int = 0, chunks: int = 1) -> Iterator["Lock"]:
    """Have a chunk of a folder to oneself.  Raises Locked, saying who works on an overlapping one."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / f"chunk-{chunk}-of-{chunks}.lock", chunk, chunks)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


class Lock:
    """``hold`` makes one."""

    def __init__(self, path: Path, chunk: int, chunks: int):
        self.path, self.chunk, self.chunks = path, chunk, chunks
        self.stopped = threading.Event()

    def acquire(self) -> None:
        silent = self._wait_for_hearts()
        with gate(self.path.parent):
            for holder in self._others():
                alive = holder.alive()
                if alive or (alive is None and holder.content not in silent):
                    self._refuse(holder)
                notice(f"taking over from {holder}, which is gone")
                holder.path.unlink(missing_ok=True)
            self._place()
            for holder in self._others():  # without flock the gate is open: better none than two
                self.release()
                self._refuse(holder)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _others(self) -> list[Holder]:
        """Holders of overlapping chunks."""
        every = [holder for holder in holders(self.path.parent) if holder.overlaps(self.chunk, self.chunks)]
        return [holder for holder in every if not self.holds(holder.path)]

    def _wait_for_hearts(self) -> set[bytes]:
        """The contents of lock files whose owners are neither known to live nor heard."""
        unsure = [holder for holder in self._others() if holder.alive() is None]
        for holder in unsure:
            notice(f"listening for up to {PATIENCE:g} s whether it is alive: {holder}")
        for holder in listen(unsure, PATIENCE):
            self._refuse(holder)
        return {holder.content for holder in unsure}

    def _refuse(self, holder: Holder) -> None:
        folder = holder.path.parent.parent
        if self.chunks == holder.chunks == 1:
            raise Locked(f"{folder}: {holder.process()} is working on it; wait for it or stop it")
        raise Locked(
            f"{folder}: chunk {self.chunk} of {self.chunks} overlaps with what {holder} is working on; "
            "wait for it, stop it, or choose another chunk"
        )

    def _place(self) -> None:
        """Put the file there, whole and held."""
        temporary = self.path.with_name(f".{self.path.name}.{owner()}.tmp")
        try:
            self.file = open(temporary, "w+b", buffering=0)  # noqa: SIM115 (closed on release)
            held = _flock(self.file.fileno())
            self.values = {"host": host_name(), "pid": os.getpid(), "born": birth(os.getpid()), "since": now()}
            self.values |= {"chunk": self.chunk, "chunks": self.chunks, "flock": held}
            self._write(0)
            atomic.place(temporary, self.path)
        except FileExistsError:
            raise Locked(f"{self.path}: another process was faster") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, beat: int) -> None:
        """In place, and of one length, so that the file stays the one that is held."""
        os.pwrite(self.file.fileno(), json.dumps({**self.values, "beat": f"{beat:012d}"}).encode(), 0)
        os.fsync(self.file.fileno())

    def _beat(self) -> None:
        beat = 0
        while not self.stopped.wait(BEAT):
            beat += 1
            with suppress(OSError, ValueError):  # a server that is away for a moment; a file closed meanwhile
                self._write(beat)

    def holds(self, path: Path | None = None) -> bool:
        """Whether the file at the lock's path, or ``path``, is this lock's own."""
        with suppress(AttributeError, OSError, ValueError):
            return os.path.samestat(os.stat(path or self.path), os.fstat(self.file.fileno()))
        return False

    def check(self) -> None:
        """Raises Locked if somebody has taken over, since this process was asleep for too long."""
        if not self.holds():
            raise Locked(f"{self.path}: another process has taken over, while this one did not run; stopping")

    def release(self) -> None:
        self.stopped.set()
        try:
            if self.holds():
                self.path.unlink(missing_ok=True)
        finally:
            self.file.close()


@contextmanager
def gate(folder: Path) -> Iterator[None]:
    """Newcomers look and place their locks one after the other, where the file system knows flock."""
    with open(folder / "gate", "ab") as file:
        _flock(file.fileno(), PATIENCE)
        yield


def _flock(descriptor: int, seconds: float = 1.0) -> bool:
    """Hold a file by flock, within some seconds; False where that cannot be."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        except OSError:
            return False
