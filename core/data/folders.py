"""What lies in a folder, by name: no file is opened, or asked for its size."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SUFFIXES += (".avif", ".heic", ".heif")
NUMBERS = ".npy"
UNREAD: tuple[str, ...] = (
    ".svg",
    ".psd",
    ".xcf",
    ".ico",
    ".tga",
    ".jp2",
    ".j2k",
    ".jxl",
    ".jfif",
    ".pbm",
    ".pnm",
    ".pfm",
    ".eps",
)
UNREAD += (".exr", ".hdr", ".dcm", ".nii", ".nii.gz", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".npz")


def is_picture(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """By the ending alone, whatever its case; hidden files are none."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def is_folder(entry: os.DirEntry) -> bool:
    """Not where links lead in a circle: such a picture is left to be skipped as those that cannot be read."""
    with suppress(OSError):
        return entry.is_dir()
    return False


def picture_names(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Sorted names of the picture files directly in ``folder``."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if is_picture(e.name, suffixes) and not is_folder(e))


def class_folders(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, list[str]]:
    """Class name -> pictures, sorted; empty where no folder holds a picture."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if is_folder(e) and not e.name.startswith("."))
    classes = {name: picture_names(folder / name, suffixes) for name in names}
    return classes if any(classes.values()) else {}


def existing(folder: str | Path) -> Path:
    """The folder, with ``~`` put in full.  Raises ValueError where there is none."""
    path = Path(folder).expanduser()
    if not str(folder):
        raise ValueError("is empty: give the folder of the data set")
    if not path.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if path.exists() else 'no such folder'}")
    return path


def require(folder: Path, *names: str) -> None:
    """Raise ValueError where one of the files, or folders 'name/', is missing."""
    missing = [n for n in names if not ((folder / n).is_dir() if n.endswith("/") else (folder / n).is_file())]
    if missing:
        raise ValueError(f"{folder}: wanted {', '.join(missing)} there; {found(folder)}")


def found(folder: Path) -> str:
    """What lies in ``folder``, for a message."""
    return f"found: {first(sorted(os.listdir(folder)), 8) or 'nothing'}"


def first(items: Iterable[str], most: int = 3) -> str:
    """The first ``most`` of the items and how many there are beyond them, for a message."""
    items = list(items)
    return ", ".join(items[:most]) + (f", ... ({len(items) - most} more)" if len(items) > most else "")
