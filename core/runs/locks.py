"""One process a chunk: a lock that ends with the process that holds it.

The holder keeps its lock file by flock, which its computer gives back when the process dies. Another computer does not
see that, nor does anybody on a file system without flock; so the holder rewrites a counter in the file every BEAT
seconds, and a newcomer watches it for PATIENCE seconds of its own, which needs no common clock.

The library filelock would not do: a process that is killed between creating and filling a SoftFileLease leaves an empty
file, which keeps everybody out for good (the test of a lock file that says nothing decides).
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
from typing import IO

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import host_name, is_running, notice, now, owner
from ace_counterfactuals.core.runs.files import read_lock

BEAT = 2.0  # seconds between two changes of the counter
PATIENCE = 20.0  # seconds without a change after which another computer's process counts as dead


class Locked(ValueError):
    """Another process works on an overlapping chunk."""


@dataclass(frozen=True)
class Holder:
    """A lock file as it was read. born: when its process started, in the kernel's ticks, where that is known.

    flock: whether the process holds the file by flock, too.
    """

    path: Path
    content: bytes
    host: str
    pid: int
    born: int | None
    since: str
    chunk: int
    chunks: int
    flock: bool

    def alive(self) -> bool | None:
        """Whether the process lives; None where only its counter tells."""
        if self.host != host_name():
            return None  # a file server keeps the flock of a computer that has crashed for a while
        with suppress(OSError), open(self.path, "rb") as file:
            if flock(file, fcntl.LOCK_SH) is False:
                return True
        return not self.flock and (self.pid == os.getpid() or is_running(self.pid)) and birth(self.pid) == self.born

    def beats(self) -> bool:
        """Whether the counter has changed since the file was read."""
        with suppress(FileNotFoundError):
            return self.path.read_bytes() != self.content
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def holders(folder: Path) -> list[Holder]:
    """Every lock in a folder, also those of dead processes."""
    found = []
    for path in sorted(folder.glob("chunk-*.lock")):
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            found.append(Holder(path, content, **read_lock(content)))
    return found


def birth(pid: int) -> int | None:
    """When a process started, which tells it from an earlier one of the same number."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return None


def listen(watched: list[Holder], seconds: float) -> Iterator[Holder]:
    """Those whose counters change within so many seconds, each as soon as it does."""
    deadline, silent = time.monotonic() + seconds, list(watched)
    while silent and time.monotonic() < deadline:
        time.sleep(BEAT / 8)
        for holder in [holder for holder in silent if holder.beats()]:
            silent.remove(holder)
            yield holder


@contextmanager
def hold(folder: Path, chunk: int = 0, chunks: int = 1) -> Iterator["Lock"]:
    """Have a chunk of an experiment to oneself; ``folder`` is its log.

    Raises Locked, saying who works on a chunk that has pictures in common with this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / f"chunk-{chunk}-of-{chunks}.lock", chunk, chunks)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


class Lock:
    """A chunk's lock file, made by ``hold``. file: opened and held, from ``acquire`` on."""

    def __init__(self, path: Path, chunk: int, chunks: int):
        self.path, self.chunk, self.chunks = path, chunk, chunks
        self.released = threading.Event()

    def acquire(self) -> None:
        unsure = [holder for holder in self._others() if holder.alive() is None]
        for holder in unsure:
            notice(f"listening for up to {PATIENCE:g} s whether it is alive: {holder}")
        for holder in listen(unsure, PATIENCE):
            self._refuse(holder)
        silent = {holder.content for holder in unsure}
        with gate(self.path.parent):
            for holder in self._others():
                alive = holder.alive()
                if alive or (alive is None and holder.content not in silent):
                    self._refuse(holder)
                notice(f"taking over from {holder}, which is gone")
                holder.path.unlink(missing_ok=True)
            self._place()
            for holder in self._others():  # two came in at once, since there is no flock: both go
                self.release()
                self._refuse(holder)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _others(self) -> list[Holder]:
        """Holders of chunks that have pictures in common with this one."""
        found = [holder for holder in holders(self.path.parent) if not self.holds(holder.path)]
        return [h for h in found if (h.chunk - self.chunk) % math.gcd(h.chunks, self.chunks) == 0]

    def _refuse(self, holder: Holder) -> None:
        its, mine = f"chunk {holder.chunk} of {holder.chunks}", f"chunk {self.chunk} of {self.chunks}"
        where = "" if self.chunks == holder.chunks == 1 else f" ({its}, which overlaps with {mine})"
        raise Locked(f"{holder.path.parent.parent}: {holder} is working on it{where}; wait for it or stop it")

    def _place(self) -> None:
        """Put the file there, whole and held."""
        temporary = self.path.with_name(f".{self.path.name}.{owner()}.tmp")
        try:
            self.file = open(temporary, "w+b", buffering=0)  # noqa: SIM115 (closed on release)
            held = bool(flock(self.file, fcntl.LOCK_EX))
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
        while not self.released.wait(BEAT):
            beat += 1
            with suppress(OSError, ValueError):  # a server that is away for a moment; a file closed meanwhile
                self._write(beat)

    def holds(self, path: Path | None = None) -> bool:
        """Whether the file at the lock's path, or ``path``, is this lock's own."""
        with suppress(AttributeError, OSError, ValueError):
            return os.path.samestat(os.stat(path or self.path), os.fstat(self.file.fileno()))
        return False

    def check(self) -> None:
        """Raises Locked if somebody has taken over, since this process did not run for too long."""
        if not self.holds():
            raise Locked(f"{self.path}: another process has taken over, while this one did not run; stopping")

    def release(self) -> None:
        self.released.set()
        try:
            if self.holds():
                self.path.unlink(missing_ok=True)
        finally:
            self.file.close()


@contextmanager
def gate(folder: Path) -> Iterator[None]:
    """Newcomers look and place their locks one after the other, where the file system knows flock."""
    deadline = time.monotonic() + PATIENCE
    with open(folder / "gate", "ab") as file:
        while flock(file, fcntl.LOCK_EX) is False and time.monotonic() < deadline:
            time.sleep(0.01)
        yield


def flock(file: IO, kind: int) -> bool | None:
    """Hold a file by flock; False where another process does, None on a file system that does not know flock."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
