"""Files that are there whole or not at all."""

import csv
import errno
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from PIL import Image

from core.notices import host_name, is_running, owner

STRAY = re.compile(r"\..+\.(?P<host>[^-]+)-(?P<pid>\d+)\.tmp")
ABANDONED = 3600.0


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, flush to the disk, rename."""
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)


def write_once(path: Path, data: bytes) -> bool:
    """Write a file that must not be there yet, whoever else tries at the same time; False if it is there."""
    with _temporary(path, data) as temporary, suppress(FileExistsError):
        place(temporary, path)
        return True
    return False


def place(temporary: Path, path: Path) -> None:
    """Give a file its name.  Raises FileExistsError if the name is taken, also by somebody who is just as fast."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A file beside ``path`` that holds ``data``; afterwards it is gone, and its new name is on the disk too."""
    temporary = path.with_name(f".{path.name}.{owner()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not say which file
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """What was renamed or removed in it stays so when the power fails."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
            raise
    finally:
        os.close(descriptor)


def remove_strays(folders: Iterable[Path]) -> None:
    """Remove the temporary files of killed processes; another host's may be live, and are left for an hour."""
    here = host_name()
    for folder in folders:
        with os.scandir(folder) as entries:
            strays = [STRAY.fullmatch(entry.name) for entry in entries if entry.name.startswith(".")]
        for stray in filter(None, strays):
            path = folder / stray[0]
            with suppress(FileNotFoundError):
                own = stray["host"] == here
                if (not is_running(int(stray["pid"]))) if own else age(path) > ABANDONED:
                    path.unlink()


def age(path: Path) -> float:
    """Seconds by the clock of the file system, which may not be this computer's."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_yaml(path: Path, values: dict) -> None:
    write_text(path, to_yaml(values))


def to_yaml(values: dict) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def write_json(path: Path, values: dict) -> None:
    write_text(path, to_json(values))


def to_json(values: dict) -> str:
    return json.dumps(values, indent=1) + "\n"


def write_csv(path: Path, rows: Iterable[dict], columns: list[str]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_png(path: Path, image: Image.Image) -> None:
    write_bytes(path, png(image))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def write_figure(path: Path, figure) -> None:
    """A matplotlib figure as PNG, without the version that drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
