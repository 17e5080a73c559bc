"""What is kept of an explained picture: a record, which ``recording`` makes, its Info files and row of results.csv.

Nothing here imports torch.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

KINDS = ("pre-explanation", "explanation")
INFO = ("label", "pred", "target", "cf pred", "l_inf", "l_1")
SHORT = {"pre-explanation": "pre", "explanation": "ce"}
Likeliest = tuple[tuple[int, float], ...]
"""(class, probability) of at most five classes, the likeliest first; empty in records that are older than it"""


@dataclass(frozen=True)
class Outcome:
    """One kind of picture. success: prediction == target, or != the clean prediction where there is no target.
    success5: the same among the five likeliest classes; changed: prediction != clean prediction; changed5: the clean
    prediction is not among the five likeliest. prob, source_prob, target_prob: of this prediction, of the clean one
    and of the target. l1: mean, l_inf: largest absolute change of a value in [0, 1]. top5: the likeliest classes."""

    prediction: int
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


@dataclass(frozen=True)
class Record:
    """A finished picture. label and target are -1 where unknown or free; mask_area: share of pixels that could change;
    outcomes: by kind; top5: the likeliest classes of the original picture; pixels: fingerprint of the original
    picture, "" in records that are older than it; saved: whether its pictures were stored; iterations: of its attack,
    where pictures may end before the others. With a binary classifier every '5' of a rate is a constant, as in the
    original program."""

    index: int
    file: str
    binary: bool
    label: int
    prediction: int
    target: int
    correct5: bool
    source_prob: float
    target_prob: float | None
    mask_area: float
    outcomes: dict[str, Outcome]
    top5: Likeliest = ()
    pixels: str = ""
    saved: bool = True
    iterations: int | None = None

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

    def to_dict(self) -> dict:
        """What is stored: a value that is not known is left out where older records have none."""
        values = asdict(self)
        return values if self.iterations is not None else {k: v for k, v in values.items() if k != "iterations"}

    @classmethod
    def from_dict(cls, values: dict) -> "Record":
        outcomes = {kind: Outcome(**with_tuples(outcome)) for kind, outcome in values["outcomes"].items()}
        return cls(**{**with_tuples(values), "outcomes": outcomes})


def with_tuples(values: dict) -> dict:
    """JSON knows lists alone."""
    return {**values, "top5": tuple((int(label), prob) for label, prob in values.get("top5", ()))}


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
