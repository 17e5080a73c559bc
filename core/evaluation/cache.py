"""Rows of numbers by the content that they were computed from, in one file for each network, grown row by row.

A file is a line of JSON, which says what the rows are, then rows of (key, values, checksum). What another version
wrote, or what is damaged, is thrown away; of a file that is cut off the whole rows are kept.
"""

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.notices import notice

FORMAT, VERSION = "ace-cache", 1
KEY, PART = 32, 2**24


class Store:
    """The rows of one file.

    places: key -> where its row begins.  loose: key -> row, since the file could not be written any more.
    """

    def __init__(self, folder: Path, role: str, what: dict, dtype: str = "<f4"):
        """what: all that the numbers depend on, as JSON has it; the file begins with it, and is named after it."""
        head = {"format": FORMAT, "version": VERSION, "role": role, **what, "dtype": dtype}
        self.head = json.loads(json.dumps(head))  # as it will be read
        name = hashlib.sha256(json.dumps([role, what]).encode()).hexdigest()[:16]  # one for all versions
        self.path, self.dtype = folder / f"{role}-{name}.rows", dtype
        self.places: dict[bytes, int] = {}
        self.loose: dict[bytes, np.ndarray] = {}
        self.row: np.dtype | None = None
        if self.path.exists():
            with self._open() as file:
                self._read(file)

    @property
    def width(self) -> int:
        """Values of a row; 0 as long as there is none."""
        return self.row["values"].shape[0] if self.row else 0

    def __contains__(self, key: bytes) -> bool:
        return key in self.places or key in self.loose

    def add(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Keep a row of ``values`` (N, W) for each key."""
        self.row = self.row or self._row(values.shape[1])
        rows = np.zeros(len(keys), self.row)
        rows["key"], rows["values"] = np.array(keys, f"V{KEY}"), values
        rows["checksum"] = checksums(rows)
        if not self.loose:
            try:
                self.places |= self._append(rows)
                return
            except OSError as error:  # a disk or a quota that is full
                notice(f"{self.path}: {error.strerror}; answers are kept for this evaluation alone from now on")
        self.loose |= zip(keys, rows["values"], strict=True)

    def _append(self, rows: np.ndarray) -> dict[bytes, int]:
        """Where each row begins."""
        with self._open() as file:
            if file.seek(0, os.SEEK_END) == 0:
                file.write(json.dumps({**self.head, "width": self.width}).encode() + b"\n")
            start = file.tell()
            file.write(rows.tobytes())
        return {bytes(key): start + i * rows.itemsize for i, key in enumerate(rows["key"])}

    def rows(self, keys: Sequence[bytes]) -> np.ndarray:
        """(N, W) in the order of the N >= 1 keys, each of which must be there."""
        found = np.empty((len(keys), self.width), self.dtype)
        with open(self.path if self.places else os.devnull, "rb") as file:
            for place, key in enumerate(keys):
                if key in self.loose:
                    found[place] = self.loose[key]
                else:
                    file.seek(self.places[key] + KEY)
                    found[place] = np.fromfile(file, self.dtype, self.width)
        return found

    def _row(self, width: int) -> np.dtype:
        return np.dtype([("key", f"V{KEY}"), ("values", self.dtype, (width,)), ("checksum", "<u4")])

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The file for reading and appending, which no other evaluation writes to meanwhile."""
        with guard.open_to_write(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _read(self, file: BinaryIO) -> None:
        """Remember where the rows are; of a file that is damaged, or of another version, nothing, and it is emptied."""
        file.seek(0)
        end = len(head := file.readline(2**16))
        width = self._width(head)
        self.row = self._row(width) if width else None
        whole, size = bool(width), self.row.itemsize if self.row else 0
        while whole and len(data := file.read(PART // size * size)) >= size:
            rows = np.frombuffer(data, self.row, len(data) // size)
            whole = bool((checksums(rows) == rows["checksum"]).all())
            self.places |= {bytes(key): end + i * size for i, key in enumerate(rows["key"])}
            end += rows.nbytes
        if not whole:
            notice(f"{self.path}: of another version or damaged; it is written anew")
            self.places, self.row = {}, None
            file.truncate(0)
        elif file.seek(0, os.SEEK_END) > end:
            notice(f"{self.path}: cut off; its {len(self.places)} whole rows are kept")
            file.truncate(end)

    def _width(self, line: bytes) -> int | None:
        """The values of a row, if the head is what it should be."""
        try:
            head = json.loads(line)
            width = head.pop("width")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return None
        return width if head == self.head and isinstance(width, int) and 0 < width < 2**20 else None


def checksums(rows: np.ndarray) -> np.ndarray:
    """(N,) CRC-32 of key and values."""
    return np.array([zlib.crc32(row) for row in rows.view(np.uint8).reshape(len(rows), -1)[:, :-4]], "<u4")


def joined(digests: Sequence[bytes]) -> bytes:
    """The key of several pictures together."""
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
