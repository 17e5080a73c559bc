"""What the files of a result folder hold: every YAML, JSON and CSV file of one is read here.

Each reader raises ValueError, naming the file, for what its writer would not have left there.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from ace_counterfactuals.core.runs.records import Record

CONFIG = "config.yaml"
INFO = ("label", "pred", "target", "cf pred", "l_inf", "l_1")


def read_config(root: Path) -> dict:
    """What an experiment was made with: flags, digests of weights, classes, versions (see ``describe``)."""
    path = root / CONFIG
    try:
        return read_yaml(path, "flags", "weights")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run main.py with this output_path and exp_name first") from None


def read_summary(path: Path) -> dict:
    """The statistics of an experiment or of a chunk (see ``summarise``).  Raises OSError too."""
    return read_yaml(path, "n", "skipped", "explanation")


def read_yaml(path: Path, *wanted: str) -> dict:
    """A mapping that has the wanted keys."""
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict) or not set(wanted) <= values.keys():
        raise ValueError(f"{path}: has no {' and '.join(wanted)}; it was not written by main.py")
    return values


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of results.csv as text.  Raises OSError too."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_record(path: Path) -> Record | dict:
    """A finished picture's record, or what is known of a skipped one: its index, file and reason."""
    try:
        values = json.loads(path.read_bytes())
        record = values if "skipped" in values else Record.from_dict(values)
        named = values["index"] == int(path.stem)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: is no whole record ({type(error).__name__}: {error})") from None
    if not named:
        raise ValueError(f"{path}: is the record of picture {values['index']}")
    return record


def read_info(path: Path) -> dict[str, float]:
    """An Info file, of main.py or of the original program.  A target that was left free is -1."""
    try:
        values = dict(line.split(": ") for line in path.read_text().splitlines())
        return {name: float(values[name]) for name in INFO}
    except (ValueError, KeyError):
        raise ValueError(f"{path}: wanted a line 'name: number' for each of {', '.join(INFO)}") from None


def read_lock(content: bytes) -> dict:
    """Who holds a chunk; a lock file that names nobody counts as of another computer, and as for all chunks."""
    nobody = {"host": "an unknown host", "pid": 0, "born": None, "since": "an unknown time"}
    nobody |= {"chunk": 0, "chunks": 1, "flock": False}
    with suppress(ValueError, TypeError, KeyError):
        values = json.loads(content)
        return {name: values[name] for name in nobody}
    return nobody


def read_logs(folder: Path) -> Iterator[tuple[Path, dict]]:
    """What each process logged of itself, the earliest first; files that cannot be read are left out."""
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError):
            yield path, json.loads(path.read_bytes())


def read_seconds(path: Path) -> list[float]:
    """What each picture took that a process logged, in the order in which they were finished; [] without a log."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [float(row[1]) for row in list(csv.reader(file))[1:] if len(row) == 2 and row[1]]


def selected_pictures(folder: Path) -> int:
    """How many pictures the latest command asked for, all chunks together, by the logs in ``folder``; 0 if unknown."""
    counts = [values["selected"] for _, values in read_logs(folder) if "selected" in values]
    return counts[-1] if counts else 0
