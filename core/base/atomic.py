"""Files that are there whole or not at all."""

import csv
import errno
import io
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import yaml
from PIL import Image, PngImagePlugin

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.cells import as_cell
from ace_counterfactuals.core.base.notices import host_name, is_running, owner

STRAY = re.compile(r"\..+\.(?P<host>[^-]+)-(?P<pid>\d+)\.tmp")
ABANDONED = 3600.0  # seconds, so long that the clocks of two computers do not matter
AT_ONCE = 12  # files that are encoded or flushed side by side: a picture's


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, flush to the disk, rename."""
    with prepared({path: data}) as temporary:
        rename(temporary, [path])


def write_once(path: Path, data: bytes) -> bool:
    """Write a file that must not be there yet, whoever else tries at the same time; False if it is there."""
    with prepared({path: data}) as temporary, suppress(FileExistsError):
        place(temporary[path], path)
        sync_folder(path.parent)
        return True
    return False


@contextmanager
def prepared(files: Mapping[Path, bytes]) -> Iterator[dict[Path, Path]]:
    """Within, the files are on the disk under temporary names beside their own: path -> temporary path.

    They are flushed side by side: a disk takes little longer for ten than for one.
    """
    temporary = {path: path.with_name(f".{path.name}.{owner()}.tmp") for path in files}

    def write(path: Path) -> None:
        with _naming(path), guard.open_to_write(temporary[path], "wb") as file:
            file.write(files[path])
            file.flush()
            os.fsync(file.fileno())

    try:
        _side_by_side(write, files)
        yield temporary
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def rename(temporary: Mapping[Path, Path], paths: Collection[Path]) -> None:
    """Give ``prepared`` files their own names, for good."""
    guard.refuse_links(paths)
    for path in paths:
        with _naming(path):
            os.replace(temporary[path], path)
    _side_by_side(sync_folder, {path.parent for path in paths})


def place(temporary: Path, path: Path) -> None:
    """Give a file its name.  Raises FileExistsError if the name is taken, also by somebody who is just as fast."""
    guard.refuse_links([path])
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A full disk does not say which file is too much."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _side_by_side(work: Callable, items: Collection) -> list:
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, items))


def sync_folder(folder: Path) -> None:
    """What was renamed or removed in it stays so when the power fails."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with _naming(folder):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
            raise
    finally:
        os.close(descriptor)


def remove_strays(folders: Iterable[Path]) -> None:
    """Remove the temporary files of killed processes; another host's may be live, and are left for an hour."""
    for folder in folders:
        strays = [STRAY.fullmatch(name) for name in os.listdir(folder) if name.startswith(".")]
        for stray in filter(None, strays):
            with suppress(FileNotFoundError):
                path, own = folder / stray[0], stray["host"] == host_name()
                if not is_running(int(stray["pid"])) if own else time.time() - path.stat().st_mtime > ABANDONED:
                    guard.remove([path])


def write_text(path: Path, text: str) -> None:
    """Bytes of a file name that are not UTF-8 are written as \\udc and their number."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_yaml(path: Path, values: dict) -> None:
    write_text(path, to_yaml(values))


def to_yaml(values: dict) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def write_json(path: Path, values: dict) -> None:
    write_text(path, to_json(values))


def to_json(values: dict) -> str:
    return json.dumps(values, indent=1) + "\n"


def write_csv(path: Path, rows: Iterable[dict], columns: list[str]) -> None:
    write_text(path, to_csv(rows, columns))


def to_csv(rows: Iterable[dict], columns: list[str]) -> str:
    """Lines end with a line feed; what has either end of a line in it is quoted, which csv does for its own ends."""
    lines: list[str] = []
    writer = csv.DictWriter(SimpleNamespace(write=lambda line: lines.append(line[:-2] + "\n")), columns)
    writer.writeheader()
    writer.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    return "".join(lines)


def write_figure(path: Path, figure) -> None:
    """A matplotlib figure as PNG, without the version that drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def write_png(path: Path, image: Image.Image, **texts: str) -> None:
    """texts: what the file is to hold beside the picture, by name."""
    write_bytes(path, png(image, **texts))


def png(image: Image.Image, **texts: str) -> bytes:
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    image.save(buffer, "png", compress_level=4, pnginfo=info)  # as small as 6 on photographs, in two thirds of its time
    return buffer.getvalue()


def pngs(pictures: Mapping[Path, Image.Image]) -> dict[Path, bytes]:
    """The files of several pictures; one that is there twice is encoded once."""
    different = {id(picture): picture for picture in pictures.values()}
    encoded = dict(zip(different, _side_by_side(png, different.values()), strict=True))
    return {path: encoded[id(picture)] for path, picture in pictures.items()}
