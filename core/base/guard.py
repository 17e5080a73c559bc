"""Where a command may write: in the folders that it was given, and through no link that lies in one of them."""

import os
import stat
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import IO

_given: set[Path] = set()


class Outside(ValueError):
    """A path inside a folder that was given, which leads elsewhere."""


def give(folder: Path) -> None:
    """Let what lies in a folder that the user named be written.  The folder itself may be a link."""
    _given.add(folder.absolute())


def refuse_links(paths: Iterable[Path]) -> None:
    """Raises Outside where a part of a path, below the innermost folder that was given, is a link, or is '..'.

    A file that lies in none of them was named by the user itself.
    """
    sound: set[Path] = set()
    for path in map(Path.absolute, paths):
        below = list(takewhile(lambda place: place not in _given and place not in sound, (path, *path.parents)))
        if len(below) > len(path.parents):
            continue
        for place in reversed(below):
            _refuse_link(place)
            sound.add(place)


def _refuse_link(place: Path) -> None:
    if place.name != ".." and not os.path.islink(place):
        return
    root = next(folder for folder in place.parents if folder in _given)
    what = "leads out of the folder" if place.name == ".." else f"is a link to {os.readlink(place)}"
    rule = f"nothing in {root} is written, moved or deleted through a link"
    raise Outside(f"{place}: {what}; {rule}; put a real one in its place, or make {root} itself the link")


def open_to_write(path: Path, mode: str) -> IO:
    """Open a plain file, made where it is not there: no link, and no pipe or device in its place.

    mode: of ``open``, in which it must be allowed to make a file.  One that is written anew is another file than the
    one that lay there, which may have further names.
    """
    refuse_links([path])
    if mode.startswith("w"):
        remove([path])
        mode = mode.replace("w", "x")

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise Outside(f"{path}: is no plain file; remove it")

    return open(path, mode, opener=opener)


def make_folder(folder: Path) -> None:
    """With those above it, where it is not there."""
    refuse_links([folder])
    folder.mkdir(parents=True, exist_ok=True)


def remove(paths: Iterable[Path]) -> None:
    """Delete files, of which each may be gone already; none of them where one is refused."""
    paths = list(paths)
    refuse_links(paths)
    for path in paths:
        path.unlink(missing_ok=True)


def move(path: Path, target: Path) -> None:
    """Give a file another place, whose folder is made, whatever lies there."""
    make_folder(target.parent)
    refuse_links([path, target])
    os.replace(path, target)
