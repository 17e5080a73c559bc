"""The one pass over the pictures: each is read and decoded once, and every network is asked only what is not cached."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ace_counterfactuals.core.data.imageset import prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, to_tensor
from ace_counterfactuals.core.evaluation.cache import Store, joined


@dataclass(eq=False)
class Task:
    """A question to pictures, or to pairs of them, whose answers are rows of numbers.

    load: gives the network, called when the first answer is missing.  ask: (network, a batch (N, 3, H, W) of each
    picture of the pair) -> (N, W).  view: how a decoded picture becomes (3, H, W).
    numbered: the answer depends on the number in the picture's file name, too; ``ask`` takes all N as ``indices``.
    """

    store: Store
    load: Callable
    ask: Callable[..., Tensor]
    device: torch.device
    view: Callable[[Image.Image], Tensor] = to_tensor
    numbered: bool = False
    waiting: dict[tuple, list] = field(default_factory=dict)
    asked: set[bytes] = field(default_factory=set)

    @cached_property
    def network(self):
        return self.load()

    def key(self, paths: Sequence[Path], digests: Mapping[Path, bytes]) -> bytes:
        """What the answer about the pictures is kept by."""
        number = [paths[0].stem.encode()] if self.numbered else []
        return joined([*(digests[path] for path in paths), *number])

    def lacks(self, key: bytes) -> bool:
        return key not in self.store and key not in self.asked

    def take(self, key: bytes, paths: Sequence[Path], images: Sequence[Tensor], batch_size: int) -> None:
        """Ask as soon as a batch of one size is together."""
        self.asked.add(key)
        batch = self.waiting.setdefault(images[0].shape, [])
        batch.append((key, paths, images))
        if len(batch) == batch_size:
            self.answer(batch)

    def answer(self, batch: list) -> None:
        """Ask about all of a batch, and empty it."""
        keys, paths, images = zip(*batch, strict=True)
        sides = [torch.stack(side).to(self.device) for side in zip(*images, strict=True)]
        more = {"indices": [int(first.stem) for first, *_ in paths]} if self.numbered else {}
        with torch.no_grad():
            self.store.add(keys, self.ask(self.network, *sides, **more).cpu().numpy())
        batch.clear()

    def finish(self) -> None:
        for batch in filter(None, self.waiting.values()):
            self.answer(batch)
        self.waiting, self.asked = {}, set()
        self.__dict__.pop("network", None)  # its memory


Job = tuple[Task, tuple[Path, ...]]


@dataclass(frozen=True)
class Read:
    """What a worker hands over of one group of jobs: the files' digests, what is to be asked, what does not decode."""

    digests: dict[Path, bytes]
    asked: list[tuple[Task, bytes, tuple[Path, ...], list[Tensor]]]
    errors: dict[Path, str]


class Groups:
    """Jobs that share pictures, as a list that reads and decodes when it is asked for an item."""

    def __init__(self, groups: Sequence[Callable[[], list[Job]]]):
        self.groups = groups

    def __getitem__(self, position: int) -> Read:
        jobs = self.groups[position]()
        digests, errors, images, views = {}, {}, {}, {}
        for path in {path: None for _, paths in jobs for path in paths}:
            digests[path] = hashlib.sha256(path.read_bytes()).digest()
        asked = []
        for task, paths in jobs:
            key = task.key(paths, digests)
            if not task.lacks(key):
                continue
            for path in paths:
                if (path, task.view) not in views and path not in errors:
                    try:
                        images[path] = images.get(path) or decode(path)
                        views[path, task.view] = task.view(images[path])
                    except UnreadableImage as error:
                        errors[path] = error.reason
            if not errors.keys() & set(paths):
                asked.append((task, key, paths, [views[path, task.view] for path in paths]))
        return Read(digests, asked, errors)


def run_pass(
    groups: Sequence[Callable[[], list[Job]]], tasks: Sequence[Task], *, batch_size: int, workers: int
) -> tuple[dict[Path, bytes], dict[Path, str]]:
    """Answer all jobs into the stores of their tasks.

    groups: each gives the jobs that share pictures.  Returns the digest of every file, and, for those that do not
    decode, the reason.
    """
    digests, errors = {}, {}
    for read in with_progress(prefetch(Groups(groups), range(len(groups)), workers), len(groups)):
        digests |= read.digests
        errors |= read.errors
        for task, key, paths, images in read.asked:
            if task.lacks(key):
                task.take(key, paths, images, batch_size)
    for task in tasks:
        task.finish()
    return digests, errors


def with_progress(items: Iterator[Read], total: int) -> Iterator[Read]:
    return iter(tqdm(items, total=total, unit="img", desc="pictures", disable=None, leave=False, file=sys.stderr))
