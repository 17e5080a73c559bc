"""Small files that may come from somebody else: regular ones alone, bounded, and named where they cannot be read."""

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

if TYPE_CHECKING:
    import numpy as np

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
LIMIT = 2**20  # bytes of a record, a log, a lock, settings or a summary
DEPTH = 20  # of what is nested in YAML


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """A file to read.  A pipe, which would keep one waiting, a device or a folder is refused; a link is followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: is not a regular file")
    return open(descriptor, "rb")


def read_bytes(path: Path, limit: int = LIMIT) -> bytes:
    """A whole file of at most ``limit`` bytes.  Raises OSError too."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size <= limit and len(data := file.read(limit + 1)) <= limit:
            return data
    raise ValueError(f"{path}: is larger than {limit} bytes, which no such file is")


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The same of a text in UTF-8."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8 (byte {error.start + 1})") from None


def read_npy(path: Path, limit: int = LIMIT) -> "np.ndarray":
    """The numbers of a .npy file of at most ``limit`` bytes, no objects, in no more memory than the file is large.

    Raises OSError too.
    """
    from numpy import frombuffer
    from numpy.lib import format

    stream = io.BytesIO(read_bytes(path, limit))
    try:
        readers = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
        shape, in_columns, kind = readers[format.read_magic(stream)](stream)
        values = stream.read()
        if kind.kind not in "biuf" or min(shape, default=0) < 1 or len(values) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"wanted all of an array of numbers, found {kind} {shape}")
        return frombuffer(values, kind).reshape(shape, order="F" if in_columns else "C")
    except Exception as error:  # numpy lets through whatever a header makes its parser stumble on
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """What a JSON file holds.  Raises OSError too."""
    return parse_json(read_bytes(path, limit), path)


def parse_json(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError(f"{path}: is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error})") from None


def read_yaml(path: Path, limit: int = LIMIT) -> Any:
    """What a YAML file holds, which is nested at most DEPTH deep and has no anchors.  Raises OSError too."""
    text, depth = read_text(path, limit), 0
    try:
        for event in yaml.parse(text, LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ValueError("anchors and aliases are not read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ValueError("it is nested too deep")
        return yaml.load(text, LOADER)
    except Exception as error:  # PyYAML lets through whatever its constructors stumble on
        raise ValueError(f"{path}: is not YAML as it is read here: {' '.join(str(error).split())}") from None
