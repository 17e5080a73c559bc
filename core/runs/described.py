"""config.yaml: what an experiment was made with, read and written.  Nothing here imports torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import read_bytes, read_yaml
from ace_counterfactuals.core.base.schema import Plain, checked
from ace_counterfactuals.core.base.settings import FlagError, convert, flag_items, to_dict
from ace_counterfactuals.core.runs.config import MainConfig

CONFIG = "config.yaml"
WEIGHTS = ("model_path", "classifier_path")
STUDENT = "attack_student"  # a file of weights too, of the attack alone
SEAL = b"sha256: "  # begins its last line: the digest of what stands before that


@dataclass(frozen=True)
class Described:
    """What config.yaml holds, as far as it is read."""

    OPEN: ClassVar = True
    flags: dict[str, Plain]
    weights: dict[str, str]
    classes: list[str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    batch_size: Annotated[int, 1, 2**31] = 1


def read_config(root: Path) -> dict:
    """What an experiment was made with: flags, digests of weights, classes, versions (see ``describe``).

    Raises ValueError for a value that a flag cannot have, except for a choice, which another module may add.
    """
    path = root / CONFIG
    try:
        stored = read_raw(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run main.py with this output_path and exp_name first") from None
    made_before = described_flags(to_dict(MainConfig())) | {"image_channels": 3}  # by what younger flags do not change
    flags = stored["flags"] = made_before | stored["flags"]
    for name, known in flag_items(MainConfig).items():
        if name in flags:
            try:
                flags[name] = convert(name, replace(known, choices=None), flags[name])
            except FlagError as error:
                raise ValueError(f"{path}: flags.{name}: {error.reason}") from None
    return stored


def read_raw(path: Path) -> dict:
    """What stands in a config.yaml.  Raises OSError too."""
    stored = read_yaml(path)
    checked(Described, stored, path)
    return stored


def described_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What results depend on, and the paths of data and weights: neither where nor in which parts it is computed."""
    kept = {name for name, item in flag_items(MainConfig).items() if item.result} | {"data_dir", STUDENT, *WEIGHTS}
    return {name: value for name, value in flags.items() if name in kept}


def sealed(described: Mapping) -> bytes:
    """The file, of what ``describe`` gives."""
    data = atomic.to_yaml(dict(described)).encode()
    return data + SEAL + sha256(data).encode() + b"\n"


def check_seal(path: Path) -> None:
    """Raises ValueError for a file that is not as ``sealed`` gave it, as those of older versions are not."""
    content, _, digest = read_bytes(path).rpartition(SEAL)
    if digest != sha256(content).encode() + b"\n":
        raise ValueError(f"{path}: is not as it was written")


def settings_digest(described: Mapping) -> str:
    """Of what results depend on, wherever data and weights lie: each record has it."""
    paths = {name for name, known in flag_items(MainConfig).items() if known.path}
    flags = {name: value for name, value in described["flags"].items() if name not in paths}
    content = [flags, described["weights"], described.get("classes")]
    return sha256(json.dumps(content, sort_keys=True).encode())


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()
