"""What an evaluation finds: figures with how sure they are, and the pictures that they were computed on."""

from dataclasses import dataclass, field
from pathlib import Path

from ace_counterfactuals.core.runs.layout import FOLDERS
from ace_counterfactuals.core.runs.records import Likeliest


@dataclass(frozen=True)
class Population:
    """Folders of an experiment: CC and IC hold what the classifier got right and wrong, CCF and ICF what flipped."""

    name: str
    folders: tuple[str, ...]


FLIPPED = Population("CC+IC, CCF", ("CC/CCF", "IC/CCF"))
CORRECT = Population("CC, CCF+ICF", ("CC/CCF", "CC/ICF"))
EVERY = Population("CC+IC, CCF+ICF", FOLDERS)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of the table.

    key: unique in its experiment, such as ``sfid``; name: as papers print it; value: None where ``n`` is 0.
    low, high: 95 % interval; interval: how it was made.  better: 'lower', 'higher' or ''.
    notes: what keeps it from meaning what it says, such as too few pictures.  complete: False on part of an experiment.
    """

    key: str
    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    population: str
    n: int
    better: str = ""
    meaning: str
    notes: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One explained picture.

    name: of its files, such as 0000012.png; file: its path in the data set, '' if unknown; folder: such as CC/CCF.
    label, prediction, target: classes, -1 where unknown or free; cf_prediction: of the counterfactual.
    before, after: the classifier on the original and on the counterfactual, empty if unknown.
    values: per-picture figures by key, among them l1, l_inf and, where known, mask_area, source_prob,
    target_prob, cf_source_prob and cf_target_prob.
    """

    name: str
    file: str
    folder: str
    label: int
    prediction: int
    target: int
    cf_prediction: int
    before: Likeliest = ()
    after: Likeliest = ()
    values: dict[str, float] = field(default_factory=dict)
    original: Path
    counterfactual: Path
    pre_explanation: Path | None = None
    mask: Path | None = None

    @property
    def flipped(self) -> bool:
        return self.folder in FLIPPED.folders


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """name: such as exp/explanation; root: the folder that holds CC and IC; classes: names of the outputs, if known."""

    name: str
    root: Path
    binary: bool
    classes: tuple[str, ...] | None
    pictures: tuple[Picture, ...]
    figures: tuple[Figure, ...]

    @property
    def complete(self) -> bool:
        return all(figure.complete for figure in self.figures)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure of ``second`` minus that of ``first``, over the ``n`` pictures that both explained; 95 % interval."""

    key: str
    first: str
    second: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """details: seed, versions, digests of the weights: whatever tells how the figures were made."""

    experiments: tuple[Experiment, ...]
    differences: tuple[Difference, ...] = ()
    details: dict = field(default_factory=dict)
