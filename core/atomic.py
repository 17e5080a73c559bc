"""Files that are there whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import yaml
from PIL import Image


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, flush to the disk, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not say which file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_yaml(path: Path, values: dict) -> None:
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def write_json(path: Path, values: dict) -> None:
    write_text(path, json.dumps(values, indent=1) + "\n")


def write_csv(path: Path, rows: Iterable[dict], columns: list[str]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_png(path: Path, image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    write_bytes(path, buffer.getvalue())
