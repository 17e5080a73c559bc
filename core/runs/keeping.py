"""The attack in hand: its state is kept, so that a killed run loses at most EVERY seconds of it, or one iteration.

A state is a file in the experiment's folder, named by the first picture that its attack began with, from which the
same command goes on; it goes with the end of that attack. What cannot be used begins anew, with a notice.
"""

import hashlib
import json
import stat
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import flag_items, to_dict
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import read_config
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import Lock
from ace_counterfactuals.core.runs.writing import Writer
from ace_counterfactuals.models.loading import load_weights, save_weights

EVERY = 30.0  # seconds between two states
VERSION = 2  # of the file; with each change of what an attack does between two iterations it grows
LARGEST = 48  # bytes of a state for each value of a picture twice as wide as high and each place, beside its head
HEAD = 2**20


class Kept:
    """The attack of one batch after the other, and what is left of those that another process had in hand."""

    def __init__(self, config: MainConfig, results: ResultFolder, lock: Lock, writer: Writer):
        own = {name for name, item in flag_items(MainConfig).items() if item.result}
        flags = {name: value for name, value in to_dict(config).items() if name in own}
        self.made = json.dumps([VERSION, flags, read_config(results.root)["weights"]], sort_keys=True)
        self.size, self.results, self.lock, self.writer = config.run.batch_size, results, lock, writer
        self.largest = HEAD + LARGEST * self.size * 3 * 2 * config.data.image_size**2
        self.left: dict[tuple[int, ...], tuple[Path, dict]] = {}
        self.latest: Progress | None = None
        self.new = False  # the latest is not in the file

    def batches(self, selected: Collection[int], missing: Collection[int]) -> list[list[int]]:
        """The pictures of each attack that was in hand and has some ``missing``, in a run of the ``selected`` ones.

        The lock of a chunk is that of all states that are named by one of its pictures.
        """
        for first, path in self.results.states().items():
            if first not in selected:
                continue
            try:
                tree = self.read(path)
                indices = tree["indices"]
                if not {*indices} <= {*selected} or not 0 < len({*indices}) == len(indices) < 2 * self.size:
                    raise ValueError(f"{path}: is of pictures that are not explained together now")
            except (ValueError, KeyError, TypeError) as error:
                self.drop(path, str(error) if isinstance(error, ValueError) else f"{path}: names no pictures")
                continue
            if {*indices} & {*missing}:
                self.left[tuple(indices)] = path, tree
            else:
                guard.remove([path])
        return [list(indices) for indices in self.left]

    def read(self, path: Path) -> dict:
        """What the file holds.  Raises ValueError for what cannot be a state, before it is read."""
        there = path.lstat()
        if not stat.S_ISREG(there.st_mode) or there.st_size > self.largest:
            raise ValueError(f"{path}: wanted a file of at most {self.largest} bytes")
        return load_weights(path)

    def drop(self, path: Path, reason: str) -> None:
        """Of a state that cannot be used."""
        notice(f"{reason}; the attack of its batch begins anew")
        guard.remove([path])

    def forget(self, indices: list[int], reason: str) -> None:
        """What was in hand of these pictures cannot be gone on with."""
        path, _ = self.left.pop(tuple(indices))
        self.drop(path, f"{path}: {reason}")

    def start(self, batch: Batch) -> Progress:
        """Where the attack of the batch stood, or its beginning.  From now on these pictures are in hand."""
        begin = Progress.begin(batch)
        self.path, tree = self.left.pop(tuple(batch.indices), (self.results.state(batch.indices[0]), None))
        self.latest, self.new, self.seen = begin, False, time.monotonic()
        self.saved = self.seen
        if tree:
            try:
                self.latest = self.fitting(tree, begin)
                notice(f"continuing the attack of {len(begin)} pictures after {self.latest.told} iterations")
            except ValueError as error:
                self.drop(self.path, f"{self.path}: {error}")
        return self.latest

    def fitting(self, tree: dict, begin: Progress) -> Progress:
        """The state in ``tree``.  Raises ValueError where it is damaged or not of these pictures."""
        tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
        if tree.get("digest") != self.digest(begin.batch, tensors):
            raise ValueError("is damaged, or of other pictures or settings")
        return begin.fitting(tensors)

    def digest(self, batch: Batch, tensors: Mapping[str, Tensor]) -> str:
        """Of a state, and of what it is of."""
        of = {"image": batch.image, "prediction": batch.prediction}
        of |= {} if batch.target is None else {"target": batch.target}
        of |= {} if batch.region is None else {"region": batch.region.expand(len(batch.image), -1, -1, -1)}
        return digest(digest(f"{self.made} {batch.indices}", of), tensors)

    def see(self, progress: Progress) -> None:
        """After an iteration: write the state where the next one would end too late."""
        now = time.monotonic()
        took, self.seen, self.latest, self.new = now - self.seen, now, progress, True
        if now + took - self.saved > EVERY:
            self.write()

    def write(self) -> None:
        """Write the state of what is in hand, if there is one that is not written, and before what it does not hold.

        Raises Locked, and NonFiniteError for what a network spoilt.
        """
        if self.latest is not None and self.new:
            self.later(self.latest)
            self.writer.settle()

    def later(self, latest: Progress) -> None:
        """Have its state written."""
        latest.check()
        batch, tensors = latest.batch, {name: value.cpu() for name, value in latest.tensors.items()}
        content = {**tensors, "indices": batch.indices, "digest": self.digest(batch, tensors)}
        self.writer.give(self.lock.check)
        self.writer.give(partial(save_weights, self.path, content))
        self.new, self.saved = False, self.seen

    def done(self, indices: Collection[int]) -> None:
        """Have of these pictures, which were in hand, and whose files were given to the writer, nothing kept."""
        if self.latest is None:
            return
        left = [place for place, index in enumerate(self.latest.batch.indices) if index not in indices]
        self.latest = self.latest.take(left) if left else None
        if self.latest:
            self.later(self.latest)
        else:
            self.writer.give(partial(guard.remove, [self.path]))


def digest(of: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of named tensors, in hex."""
    sha = hashlib.sha256(of.encode())
    for name, value in sorted(tensors.items()):
        sha.update(f" {name} {value.dtype} {tuple(value.shape)} ".encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
