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
from typing import IO, Annotated

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import host_name, is_running, notice, now, owner
from ace_counterfactuals.core.base.reading import parse_json, read_bytes
from ace_counterfactuals.core.base.schema import Count, checked

BEAT = 2.0  # seconds between two changes of the counter
PATIENCE = 20.0  # seconds without a change after which another computer's process counts as dead


class Locked(ValueError):
    """Another process works on an overlapping chunk."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a lock file says of its process.

    born: when the process started, in the kernel's ticks, where that is known.  flock: whether the process holds the
    file by flock, too.  beat: the counter.
    """

    host: str = "an unknown host"
    pid: Annotated[int, 0, 2**31 - 1] = 0
    born: int | None = None
    since: str = "an unknown time"
    chunk: Count = 0
    chunks: Annotated[int, 1, 2**53] = 1
    flock: bool = False
    beat: str = ""


@dataclass(frozen=True)
class Holder(Said):
    """A lock file.  One that says nothing counts as another computer's, for all chunks."""

    path: Path

    @staticmethod
    def read(path: Path) -> "Holder | None":
        """None where the file is gone."""
        content = b""
        try:
            content = read_bytes(path, 2**16)
            return Holder(path, **vars(checked(Said, parse_json(content, path), path)))
        except FileNotFoundError:
            return None
        except ValueError:
            return Holder(path, beat=str(content))

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
        return Holder.read(self.path) not in (self, None)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def holders(folder: Path) -> list[Holder]:
    """Every lock in a folder, also those of dead processes."""
    return [holder for path in sorted(folder.glob("chunk-*.lock")) if (holder := Holder.read(path))]


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

    def others() -> list[Holder]:
        return [h for h in holders(folder) if (h.chunk - chunk) % math.gcd(h.chunks, chunks) == 0]

    def refuse(holder: Holder) -> None:
        its, mine = f"chunk {holder.chunk} of {holder.chunks}", f"chunk {chunk} of {chunks}"
        where = "" if chunks == holder.chunks == 1 else f" ({its}, which overlaps with {mine})"
        raise Locked(f"{folder.parent}: {holder} is working on it{where}; wait for it or stop it")

    guard.make_folder(folder)
    silent = [holder for holder in others() if holder.alive() is None]
    for holder in silent:
        notice(f"listening for up to {PATIENCE:g} s whether it is alive: {holder}")
    for holder in listen(silent, PATIENCE):
        refuse(holder)
    with guard.open_to_write(folder / "gate", "ab") as gate:  # newcomers look and place their locks one after the other
        deadline = time.monotonic() + PATIENCE
        while flock(gate, fcntl.LOCK_EX) is False and time.monotonic() < deadline:
            time.sleep(0.01)
        for holder in others():
            alive = holder.alive()
            if alive or (alive is None and holder not in silent):
                refuse(holder)
            notice(f"taking over from {holder}, which is gone")
            guard.remove([holder.path])
        lock = Lock(folder / f"chunk-{chunk}-of-{chunks}.lock", chunk, chunks)
    try:
        for holder in others():
            if not lock.holds(holder.path):  # without flock two may come in at once: both go
                refuse(holder)
        threading.Thread(target=lock.beat, name="heartbeat", daemon=True).start()
        yield lock
    finally:
        lock.release()


class Lock:
    """A chunk's lock file, made whole and held, which ``hold`` hands out."""

    def __init__(self, path: Path, chunk: int, chunks: int):
        self.path, self.released = path, threading.Event()
        temporary = path.with_name(f".{path.name}.{owner()}.tmp")
        try:
            self.file = guard.open_to_write(temporary, "w+b")  # closed on release
            held = bool(flock(self.file, fcntl.LOCK_EX))
            self.values = {"host": host_name(), "pid": os.getpid(), "born": birth(os.getpid()), "since": now()}
            self.values |= {"chunk": chunk, "chunks": chunks, "flock": held}
            self._write(0)
            atomic.place(temporary, path)
        except FileExistsError:
            self.file.close()
            raise Locked(f"{path}: another process was faster") from None
        finally:
            guard.remove([temporary])

    def _write(self, beat: int) -> None:
        """In place, and of one length, so that the file stays the one that is held."""
        os.pwrite(self.file.fileno(), json.dumps({**self.values, "beat": f"{beat:012d}"}).encode(), 0)
        os.fsync(self.file.fileno())

    def beat(self) -> None:
        """Change the counter until the lock is released."""
        beat = 0
        while not self.released.wait(BEAT):
            beat += 1
            with suppress(OSError, ValueError):  # a server that is away for a moment; a file closed meanwhile
                self._write(beat)

    def holds(self, path: Path) -> bool:
        """Whether this is the file that is held."""
        with suppress(OSError, ValueError):
            return os.path.samestat(os.stat(path), os.fstat(self.file.fileno()))
        return False

    def check(self) -> None:
        """Raises Locked if somebody has taken over, since this process did not run for too long."""
        if not self.holds(self.path):
            raise Locked(f"{self.path}: another process has taken over, while this one did not run; stopping")

    def release(self) -> None:
        """Remove the file, unless it is another's by now."""
        self.released.set()
        try:
            if self.holds(self.path):
                guard.remove([self.path])
        finally:
            self.file.close()


def flock(file: IO, kind: int) -> bool | None:
    """Hold a file by flock; False where another process does, None on a file system that does not know flock."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
