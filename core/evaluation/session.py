"""What an evaluation works on: the networks that it asks, and the experiments, with what is known of them."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.data.pictures import to_tensor
from ace_counterfactuals.core.evaluation.cache import Store, joined
from ace_counterfactuals.core.evaluation.model import Population
from ace_counterfactuals.core.runs.experiment import Pair, StoredExperiment
from ace_counterfactuals.models.loading import digest


class Unavailable(FlagError):
    """Why a figure cannot be computed of an experiment: no reason to stop, unless it alone was asked for.

    field: the flag that would help.
    """


@dataclass(frozen=True)
class Network:
    """load: called when its first answer is missing; gives what takes a batch (N, 3, H, W) of each picture that it is
    asked about together, and answers (N,) or (N, W).

    what: all that its answers depend on, as JSON has it, among it the digest of its file.
    file: what its errors are about; flag: of the file, the judge's first if not given.
    """

    load: Callable[[], Any]
    what: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    flag: str = ""


@dataclass(frozen=True, eq=False)
class Judge:
    """A network that is asked about pictures, or several of a kind.

    name: of the files of its answers in the cache; dtype: of these answers.
    open: (session, subject) -> by name, '' where there is but one; {} where its flag is not given.  Raises
    ``Unavailable`` where the experiment does not tell whom to ask.
    flags: name -> ``flag(...)``, of evaluate.py.  view: how a decoded picture becomes (3, H, W).
    numbered: the answers depend on the number in the picture's file name, too; a network takes all N as ``indices``.
    """

    name: str
    open: Callable[["Session", "Subject"], dict[str, Network]]
    flags: dict[str, Any] = field(default_factory=dict)
    view: Callable[[Image.Image], Tensor] = to_tensor
    dtype: str = "<f4"
    numbered: bool = False


@dataclass(frozen=True)
class Session:
    """What the experiments of an evaluation share: flags, cache, and each task, so that its answers are shared, too.

    config: of ``evaluate_config()``.  files: what of the weights -> {file, sha256}, for the record.
    digest: SHA-256 of a file, in hex, computed once.
    """

    config: Any
    cache: Path
    device: torch.device
    subjects: list["Subject"] = field(default_factory=list)
    tasks: dict[str, "Task"] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    digest: Callable[[Path | str], str] = field(default_factory=lambda: cache(digest))

    @property
    def seed(self) -> int:
        return self.config.compute.seed

    def task(self, judge: Judge, network: Network) -> "Task":
        """What the network is asked; answers to equal questions are kept once."""
        key = json.dumps([judge.name, network.what])
        if key not in self.tasks:
            self.tasks[key] = Task(self, judge, network)
        return self.tasks[key]

    def named(self, flag: str, path: str, name: str = "") -> str:
        """The digest of a flag's file, which is kept for the record under ``name``, else under the flag's."""
        with blaming(flag):
            sha256 = self.digest(path)
        self.files[name or flag] = {"file": path, "sha256": sha256}
        return sha256

    def remember(self, role: str, what: dict, key: bytes, compute: Callable[[], Sequence[float]]) -> np.ndarray:
        """(W,) float64: what ``compute`` gives, from the cache if it is there.  what: all else that it depends on."""
        store = Store(self.cache, role, what, "<f8")
        if key not in store:
            store.add([key], np.array([compute()]))
        return store.rows([key])[0]


class Task:
    """What one network is asked about pictures, one or several together; its answers are rows of numbers."""

    def __init__(self, session: Session, judge: Judge, network: Network):
        self.session, self.judge, self.declared = session, judge, network
        self.store = Store(session.cache, judge.name, network.what, judge.dtype)
        self.flag = network.flag or next(iter(judge.flags), judge.name)
        self.waiting: dict[tuple, list] = {}
        self.asked: set[bytes] = set()

    @cached_property
    def network(self) -> Callable[..., Tensor]:
        with blaming(self.flag):
            loaded = self.declared.load()
        return loaded.to(self.session.device) if isinstance(loaded, nn.Module) else loaded

    def key(self, paths: Sequence[Path]) -> bytes:
        """What the answer about the pictures is kept by."""
        number = [paths[0].stem.encode()] if self.judge.numbered else []
        return joined([*(bytes.fromhex(self.session.digest(path)) for path in paths), *number])

    def lacks(self, key: bytes) -> bool:
        return key not in self.store and key not in self.asked

    def rows(self, asked: Sequence[tuple[Path, ...]]) -> np.ndarray:
        """(N, W): the answers about N pictures, each alone or with others."""
        return self.store.rows([self.key(paths) for paths in asked])

    def take(self, key: bytes, paths: Sequence[Path], images: Sequence[Tensor]) -> None:
        """Ask as soon as a batch of one size is together."""
        self.asked.add(key)
        batch = self.waiting.setdefault(images[0].shape, [])
        batch.append((key, paths, images))
        if len(batch) == self.session.config.compute.batch_size:
            self.answer(batch)

    def answer(self, batch: list) -> None:
        """Ask about all of a batch, and empty it.  Raises FlagError for a network that cannot answer."""
        keys, paths, images = zip(*batch, strict=True)
        sides = [torch.stack(side).to(self.session.device) for side in zip(*images, strict=True)]
        more = {"indices": [int(first.stem) for first, *_ in paths]} if self.judge.numbered else {}
        network, file = self.network, self.declared.file
        try:
            with torch.no_grad():
                answers = network(*sides, **more).cpu()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            height, width = sides[0].shape[2:]
            reason = str(error).partition("\n")[0]
            raise FlagError(self.flag, f"{file}: cannot take pictures of {width} x {height}: {reason}") from error
        except ValueError as error:
            raise FlagError(self.flag, f"{file}: {error}") from error
        if not answers.isfinite().all():
            raise FlagError(self.flag, f"{file}: its output is NaN or infinity")
        self.store.add(keys, answers.reshape(len(keys), -1).numpy())
        batch.clear()

    def finish(self) -> None:
        for batch in filter(None, self.waiting.values()):
            self.answer(batch)
        self.waiting, self.asked = {}, set()
        self.__dict__.pop("network", None)  # its memory


@dataclass(eq=False)
class Subject:
    """An experiment under evaluation.

    dataset: '' if unknown.  query, target: classes or attribute as the classifier numbers them, -1 if unknown.
    further: originals without a pair, which sets of counterfactuals are compared with, too.
    tasks: of the judges that can be asked, by the network's name.
    values: file name -> key -> number of a picture, filled by the figures that are means over pictures.
    """

    stored: StoredExperiment
    session: Session
    dataset: str
    query: int
    target: int
    further: tuple[Path, ...] = ()
    tasks: dict[Judge, dict[str, Task]] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def originals(self) -> dict[str, Path]:
        """By file name, in the order of the names."""
        there = {path.name: path for path in (*self.further, *(pair.original for pair in self.stored.pairs))}
        return dict(sorted(there.items()))

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

    def keep(self, key: str, pairs: Sequence[Pair], values: Iterable[float]) -> None:
        """A number of each picture, for metrics.csv, the page and paired differences."""
        for pair, value in zip(pairs, values, strict=True):
            self.values.setdefault(pair.name, {})[key] = float(value)


def in_all(subjects: Sequence[Subject]) -> list[tuple[Pair, ...]]:
    """The pairs of a picture in each experiment, of pictures that lie in the same of the four folders in all."""
    first, *others = [subject.stored.by_name for subject in subjects]
    found = [(pair, *(other.get(name) for other in others)) for name, pair in first.items()]
    return [pairs for pairs in found if len({pair and pair.folder for pair in pairs}) == 1]
