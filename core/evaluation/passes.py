"""The one pass over the pictures: each is read and decoded once, and every network is asked only what is not cached."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ace_counterfactuals.core.data.imageset import prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, to_tensor
from ace_counterfactuals.core.evaluation.cache import Store, joined
from ace_counterfactuals.core.evaluation.metrics import fva

VIEWS = {"whole": to_tensor, "face": lambda image: to_tensor(fva.prepare(image))}


@dataclass(eq=False)
class Task:
    """A question to pictures, or to pairs of them, whose answers are rows of numbers.

    load: gives the network, called when the first answer is missing.  ask: (network, a batch (N, 3, H, W) of each
    picture of the pair) -> (N, W).  view: how the pictures are handed over.
    """

    store: Store
    load: Callable[[], nn.Module | Callable | None]
    ask: Callable[..., Tensor]
    device: torch.device
    view: str = "whole"
    waiting: dict[tuple, list] = field(default_factory=dict)
    asked: set[bytes] = field(default_factory=set)

    @cached_property
    def network(self):
        return self.load()

    def lacks(self, key: bytes) -> bool:
        return key not in self.store and key not in self.asked

    def take(self, key: bytes, images: Sequence[Tensor], batch_size: int) -> None:
        """Ask as soon as a batch of one size is together."""
        self.asked.add(key)
        batch = self.waiting.setdefault(images[0].shape, [])
        batch.append((key, images))
        if len(batch) == batch_size:
            self.answer(batch)

    def answer(self, batch: list) -> None:
        with torch.no_grad():
            sides = [torch.stack(side).to(self.device) for side in zip(*(images for _, images in batch), strict=True)]
            self.store.add([key for key, _ in batch], self.ask(self.network, *sides).cpu().numpy())
        batch.clear()

    def finish(self) -> None:
        for batch in filter(None, self.waiting.values()):
            self.answer(batch)
        self.waiting, self.asked = {}, set()
        self.__dict__.pop("network", None)  # its memory


Job = tuple[Task, tuple[Path, ...]]


@dataclass(frozen=True)
class Read:
    """What a worker hands over of one group of jobs: digests of the files, and what is to be asked with which views."""

    digests: dict[Path, bytes]
    asked: list[tuple[Task, bytes, list[Tensor]]]
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
            key = joined([digests[path] for path in paths])
            if not task.lacks(key):
                continue
            for path in paths:
                if (path, task.view) not in views and path not in errors:
                    try:
                        images[path] = images.get(path) or decode(path)
                        views[path, task.view] = VIEWS[task.view](images[path])
                    except UnreadableImage as error:
                        errors[path] = error.reason
            if not errors.keys() & set(paths):
                asked.append((task, key, [views[path, task.view] for path in paths]))
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
        for task, key, images in read.asked:
            if task.lacks(key):
                task.take(key, images, batch_size)
    for task in tasks:
        task.finish()
    return digests, errors


def with_progress(items: Iterator[Read], total: int) -> Iterator[Read]:
    return iter(tqdm(items, total=total, unit="img", desc="pictures", disable=None, leave=False, file=sys.stderr))
