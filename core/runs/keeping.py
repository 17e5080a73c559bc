"""The attack in hand: its state is kept, so that a killed run loses at most EVERY seconds of it, or one iteration.

A state is a file in the experiment's folder, named by the first picture of its batch, from which the same command goes
on; it goes with the end of the batch. What cannot be used begins the batch anew, with a notice.
"""

import hashlib
import json
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import flag_items, to_dict
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import read_config
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import Lock
from ace_counterfactuals.models.loading import load_weights, save_weights

EVERY = 30.0  # seconds between two states
VERSION = 1  # of the file; with each change of what an attack does between two iterations it grows
LARGEST = 24  # bytes of a state for each value of a picture twice as wide as high, beside its head
HEAD = 2**20


class Kept:
    """The attack of one batch after the other, and what is left of those that another process had in hand."""

    def __init__(self, config: MainConfig, results: ResultFolder, lock: Lock):
        own = {name for name, item in flag_items(MainConfig).items() if item.result}
        flags = {name: value for name, value in to_dict(config).items() if name in own}
        self.made = json.dumps([VERSION, flags, read_config(results.root)["weights"]], sort_keys=True)
        self.size, self.results, self.lock = config.run.batch_size, results, lock
        self.largest = HEAD + LARGEST * self.size * 3 * 2 * config.data.image_size**2
        self.left: dict[int, dict] = {}
        self.latest: Progress | None = None

    def batches(self, selected: Collection[int], missing: Collection[int]) -> Iterator[list[int]]:
        """The pictures of each batch that was in hand and has some ``missing``, in a run of the ``selected`` ones.

        The lock of a chunk is that of all states that begin with one of its pictures.
        """
        for first, path in self.results.states().items():
            if first not in selected:
                continue
            try:
                tree = self.read(path)
                indices = tree["indices"]
                if indices[:1] != [first] or not {*indices} <= {*selected} or len({*indices}) > self.size:
                    raise ValueError(f"{path}: is of pictures that are not explained together now")
            except (ValueError, KeyError, TypeError, IndexError) as error:
                self.drop(first, str(error) if isinstance(error, ValueError) else f"{path}: names no pictures")
                continue
            if {*indices} & {*missing}:
                self.left[first] = tree
                yield list(dict.fromkeys(indices))
            else:
                guard.remove([path])

    def read(self, path: Path) -> dict:
        """What the file holds.  Raises ValueError for what cannot be a state, before it is read."""
        there = path.lstat()
        if not stat.S_ISREG(there.st_mode) or there.st_size > self.largest:
            raise ValueError(f"{path}: wanted a file of at most {self.largest} bytes")
        return load_weights(path)

    def drop(self, first: int, reason: str) -> None:
        """Of a state that cannot be used."""
        notice(f"{reason}; the attack of its batch begins anew")
        self.left.pop(first, None)
        guard.remove([self.results.state(first)])

    def start(self, batch: Batch) -> Progress | None:
        """Where the attack of the batch stood; None at its beginning.  From now on this batch is in hand."""
        found, pictures = None, {"image": batch.image, "prediction": batch.prediction}
        pictures |= {name: value for name in ("target", "region") if (value := getattr(batch, name)) is not None}
        self.indices, self.identity = batch.indices, digest(f"{self.made} {batch.indices}", pictures)
        if tree := self.left.pop(batch.indices[0], None):
            try:
                found = self.fitting(tree, batch)
                many = f"the attack of {len({*batch.indices})} pictures"
                notice(f"continuing {many} after {found.iteration} of {batch.task.attack.attack_iterations} iterations")
            except ValueError as error:
                self.drop(batch.indices[0], f"{self.results.state(batch.indices[0])}: {error}")
        self.latest, self.seen = None, time.monotonic()
        self.saved = self.seen
        return found

    def fitting(self, tree: dict, batch: Batch) -> Progress:
        """The state in ``tree``.  Raises ValueError where it is damaged or not this batch's."""
        tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
        if tree.get("digest") != digest(self.identity, tensors):
            raise ValueError("is damaged, or of other pictures or settings")
        attack = find_attack(batch.task.attack.attack_method, targeted=batch.target is not None)
        if attack is None:
            raise ValueError("is of an attack, and there is none now")
        begin = Progress.begin(attack, batch.image, batch.region)
        return begin.fitting(tensors, batch.task.attack.attack_iterations)

    def see(self, progress: Progress) -> None:
        """After an iteration: write the state where the next one would end too late."""
        now = time.monotonic()
        took, self.seen, self.latest = now - self.seen, now, progress
        if now + took - self.saved > EVERY:
            self.write()

    def write(self) -> None:
        """Write the state of the batch in hand, if there is one that is not written.  Raises Locked."""
        if self.latest is None:
            return
        self.lock.check()
        tensors = vars(self.latest)
        tree = {**tensors, "indices": self.indices, "digest": digest(self.identity, tensors)}
        save_weights(self.results.state(self.indices[0]), tree)
        self.latest, self.saved = None, self.seen

    def done(self, first: int) -> None:
        """The files of the batch that begins with this picture are written."""
        self.latest = None
        guard.remove([self.results.state(first)])


def digest(of: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of named tensors, in hex."""
    sha = hashlib.sha256(of.encode())
    for name, value in sorted(tensors.items()):
        sha.update(f" {name} {value.dtype} {tuple(value.shape)} ".encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
