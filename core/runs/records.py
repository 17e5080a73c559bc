"""What is kept of an explained picture: a record, which ``recording`` makes, its Info files and row of results.csv.

Nothing here imports torch.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import parse_json, read_bytes, read_text
from ace_counterfactuals.core.base.schema import Count, Label, checked
from ace_counterfactuals.core.runs.described import sha256

KINDS = ("pre-explanation", "explanation")
INFO = ("label", "pred", "target", "cf pred", "l_inf", "l_1")
WEAK = 0.6  # a flip that the classifier gives less than this probability
SHORT = {"pre-explanation": "pre", "explanation": "ce"}
DIGEST = "sha256"  # of a record's other fields, in the file itself
Likeliest = tuple[tuple[Label, float], ...]
"""(class, probability) of at most five classes, the likeliest first; empty in records that are older than it"""


@dataclass(frozen=True)
class Outcome:
    """One kind of picture. success: prediction == target, or != the clean prediction where there is no target.
    success5: the same among the five likeliest classes; changed: prediction != clean prediction; changed5: the clean
    prediction is not among the five likeliest. prob, source_prob, target_prob: of this prediction, of the clean one
    and of the target. l1: mean, l_inf: largest absolute change of a value in [0, 1]. top5: the likeliest classes."""

    prediction: Label
    success: bool
    success5: bool
    changed: bool
    changed5: bool
    prob: float
    source_prob: float
    target_prob: float | None
    l1: float
    l_inf: float
    top5: Likeliest = ()

    @property
    def weak(self) -> bool:
        """Whether it flips, but barely: almost as soon it would not."""
        return self.success and self.prob < WEAK


@dataclass(frozen=True)
class Record:
    """A finished picture. label and target are -1 where unknown or free; mask_area: share of pixels that could change;
    outcomes: by kind; top5: the likeliest classes of the original picture; pixels: fingerprint of the original
    picture, "" in records that are older than it; saved: whether its pictures were stored; iterations: of its attack,
    where pictures may end before the others; files: path below the experiment's folder -> SHA-256 of what was written
    with the record, {} in records that are older than it; settings: what config.yaml was made of (``settings_digest``).
    With a binary classifier every '5' of a rate is a constant, as in the original program."""

    index: Count
    file: str
    binary: bool
    label: Label
    prediction: Label
    target: Label
    correct5: bool
    source_prob: float
    target_prob: float | None
    mask_area: Annotated[float, 0, 1]
    outcomes: dict[str, Outcome]
    top5: Likeliest = ()
    pixels: str = ""
    saved: bool = True
    iterations: Count | None = None
    files: dict[str, str] = field(default_factory=dict)
    settings: str = ""

    @property
    def correct(self) -> bool:
        """An unknown label counts as the prediction."""
        return self.label in (-1, self.prediction)

    def folder(self, kind: str) -> str:
        """CC/CCF, CC/ICF, IC/CCF or IC/ICF."""
        return f"{'CC' if self.correct else 'IC'}/{'CCF' if self.outcomes[kind].success else 'ICF'}"

    def info(self, kind: str) -> str:
        """The text of the picture's Info file."""
        outcome, number = self.outcomes[kind], float if self.binary else int
        classes = map(number, (self.label, self.prediction, self.target, outcome.prediction))
        values = zip(INFO, (*classes, outcome.l_inf, outcome.l1), strict=True)
        return "\n".join(f"{name}: {value}" for name, value in values)

    def row(self) -> dict[str, str]:
        """The picture's row of results.csv, as it is read back."""
        names = ("index", "file", "label", "prediction", "target", "source_prob", "target_prob", "mask_area")
        row = {name: getattr(self, name) for name in names}
        for kind, outcome in self.outcomes.items():
            for name in ("prediction", "success", "source_prob", "target_prob", "l1", "l_inf"):
                row[f"{SHORT[kind]}_{name}"] = getattr(outcome, name)
        return {name: "" if value is None else str(value) for name, value in row.items()}

    def to_bytes(self) -> bytes:
        """The record's file: a value that is not known is left out where older records have none."""
        values = asdict(self)
        unknown = [name for name in ("iterations", "files", "settings") if values[name] in (None, {}, "")]
        return sealed({name: value for name, value in values.items() if name not in unknown})


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read.  skipped: why."""

    index: Count
    file: str
    skipped: str


def content_digest(values: dict) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode())


def sealed(values: dict) -> bytes:
    """A record's file, with the digest of its content."""
    return atomic.to_json({**values, DIGEST: content_digest(values)}).encode()


def parse_record(data: bytes, path: Path) -> Record | Skipped:
    """What a record's file holds.  Raises ValueError for one that is not whole, or is of another picture."""
    values = parse_json(data, path)
    kept = values.pop(DIGEST, None) if isinstance(values, dict) else None
    schema: type[Record] | type[Skipped] = Skipped if isinstance(values, dict) and "skipped" in values else Record
    record = checked(schema, values, path)
    if isinstance(record, Record) and record.outcomes.keys() != {*KINDS}:
        raise ValueError(f"{path}: outcomes: wanted those of {' and '.join(KINDS)}")
    if f"{record.index:07d}" != path.stem:
        raise ValueError(f"{path}: index: is the record of picture {record.index}")
    covered = kept is not None or (isinstance(record, Record) and record.files)
    if covered and kept != content_digest(values):
        raise ValueError(f"{path}: {DIGEST}: was made of another content: the record is not as it was written")
    return record


def read_record(path: Path) -> Record | Skipped:
    """A picture's record.  Raises as ``parse_record``, and OSError."""
    return parse_record(read_bytes(path), path)


def read_info(path: Path) -> dict[str, float]:
    """An Info file, of main.py or of the original program.  A target that was left free is -1."""
    try:
        values = dict(line.split(": ") for line in read_text(path).splitlines())
        info = {name: float(values[name]) for name in INFO}
    except (ValueError, KeyError):
        info = {}
    if info and all(map(math.isfinite, info.values())):
        return info
    raise ValueError(f"{path}: wanted a line 'name: number' for each of {', '.join(INFO)}")
