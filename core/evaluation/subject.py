"""An experiment under evaluation: what is known of it, and what the judges answered."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ace_counterfactuals.core.evaluation.cache import Store
from ace_counterfactuals.core.evaluation.passes import Task
from ace_counterfactuals.core.evaluation.pictures import Population
from ace_counterfactuals.core.runs.experiment import Pair, StoredExperiment


@dataclass(eq=False)
class Subject:
    """config: the flags of evaluate.py.  dataset: '' if unknown.

    query, target: classes or attribute as the classifier numbers them, -1 if unknown.
    tasks: metric -> network's name, '' where there is but one -> its answers.  digests: of each picture's file.
    further: originals without a pair, which sets of counterfactuals are compared with, too.
    values: file name -> key -> number of a picture, filled by the figures that are means over pictures.
    """

    stored: StoredExperiment
    config: Any
    cache: Path
    dataset: str
    query: int
    target: int
    tasks: dict[str, dict[str, Task]] = field(default_factory=dict)
    further: tuple[Path, ...] = ()
    digests: dict[Path, bytes] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.config.compute.seed

    @cached_property
    def originals(self) -> dict[str, Path]:
        """By file name, in the order of the names."""
        there = {path.name: path for path in (*self.further, *(pair.original for pair in self.stored.pairs))}
        return dict(sorted(there.items()))

    def leave_out(self, names: Collection[str], problems: Sequence[str]) -> None:
        """Drop the pairs of these names, which the problems are about."""
        pairs = tuple(pair for pair in self.stored.pairs if pair.name not in names)
        self.stored = replace(self.stored, pairs=pairs, problems=(*self.stored.problems, *problems))
        self.__dict__.pop("originals", None)

    def digest_of(self, name: str) -> str:
        """SHA-256 of the file that the run's flag named, '' if unknown."""
        return self.stored.settings.get("weights", {}).get(name, "").removeprefix("sha256:")

    def decisions(self, pair: Pair) -> tuple[int, int, int]:
        """The attacked classifier's predictions on both, and the target, from the record or else the Info file."""
        if record := self.stored.records.get(pair.name):
            return record.prediction, record.outcomes[self.stored.kind].prediction, record.target
        info = pair.read_info()
        return int(info["pred"]), int(info["cf pred"]), int(info["target"])

    def of(self, population: Population) -> list[Pair]:
        return [pair for pair in self.stored.pairs if pair.folder in population.folders]

    def rows(self, task: Task, asked: Sequence[tuple[Path, ...]]) -> np.ndarray:
        """(N, W): the answers about N pictures, each alone or with others."""
        return task.store.rows([task.key(paths, self.digests) for paths in asked])

    def keep(self, key: str, pairs: Sequence[Pair], values: np.ndarray) -> None:
        """A number of each picture, for metrics.csv, the page and paired differences."""
        for pair, value in zip(pairs, values.tolist(), strict=True):
            self.values.setdefault(pair.name, {})[key] = value

    def remember(self, role: str, what: dict, key: bytes, compute: Callable[[], Sequence[float]]) -> np.ndarray:
        """(W,) float64: what ``compute`` gives, from the cache if it is there.  what: all else that it depends on."""
        store = Store(self.cache, role, what, "<f8")
        if key not in store:
            store.add([key], np.array([compute()]))
        return store.rows([key])[0]
