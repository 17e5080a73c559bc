"""The one pass over the pictures: each is read and decoded once, and every network is asked only what is not cached."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.imageset import prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode
from ace_counterfactuals.core.evaluation.cache import Store, joined


@dataclass(eq=False, kw_only=True)
class Task:
    """What a network is asked about pictures, one or several together; its answers are rows of numbers.

    load: gives the network, called when the first answer is missing; it takes a batch (N, 3, H, W) of each picture,
    and answers (N,) or (N, W).  view: how a decoded picture becomes (3, H, W).  digests: of the pictures' files, grown
    as they are asked for.
    numbered: the answer depends on the number in the picture's file name, too; the network takes all N as ``indices``.
    flag, file: what errors are about.
    """

    store: Store
    load: Callable[[], Callable[..., Tensor]]
    view: Callable[[Image.Image], Tensor]
    digests: Mapping[Path, bytes]
    device: torch.device
    numbered: bool
    flag: str
    file: str
    waiting: dict[tuple, list] = field(default_factory=dict)
    asked: set[bytes] = field(default_factory=set)

    @cached_property
    def network(self) -> Callable[..., Tensor]:
        return self.load()

    def key(self, paths: Sequence[Path]) -> bytes:
        """What the answer about the pictures is kept by."""
        number = [paths[0].stem.encode()] if self.numbered else []
        return joined([*(self.digests[path] for path in paths), *number])

    def lacks(self, key: bytes) -> bool:
        return key not in self.store and key not in self.asked

    def rows(self, asked: Sequence[tuple[Path, ...]]) -> np.ndarray:
        """(N, W): the answers about N pictures, each alone or with others."""
        return self.store.rows([self.key(paths) for paths in asked])

    def take(self, key: bytes, paths: Sequence[Path], images: Sequence[Tensor], batch_size: int) -> None:
        """Ask as soon as a batch of one size is together."""
        self.asked.add(key)
        batch = self.waiting.setdefault(images[0].shape, [])
        batch.append((key, paths, images))
        if len(batch) == batch_size:
            self.answer(batch)

    def answer(self, batch: list) -> None:
        """Ask about all of a batch, and empty it.  Raises FlagError for a network that cannot answer."""
        keys, paths, images = zip(*batch, strict=True)
        sides = [torch.stack(side).to(self.device) for side in zip(*images, strict=True)]
        more = {"indices": [int(first.stem) for first, *_ in paths]} if self.numbered else {}
        network = self.network
        try:
            with torch.no_grad():
                answers = network(*sides, **more).cpu()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            height, width = sides[0].shape[2:]
            reason = f"cannot take pictures of {width} x {height}: {str(error).partition(chr(10))[0]}"
            raise FlagError(self.flag, f"{self.file}: {reason}") from error
        if not answers.isfinite().all():
            raise FlagError(self.flag, f"{self.file}: its output is NaN or infinity")
        self.store.add(keys, answers.reshape(len(keys), -1).numpy())
        batch.clear()

    def finish(self) -> None:
        for batch in filter(None, self.waiting.values()):
            self.answer(batch)
        self.waiting, self.asked = {}, set()
        self.__dict__.pop("network", None)  # its memory


Job = tuple[Task, tuple[Path, ...]]


class Groups:
    """Jobs that share pictures, as a list that reads and decodes when it is asked for an item."""

    def __init__(self, groups: Sequence[Sequence[Job]]):
        self.groups = groups

    def __getitem__(self, position: int) -> tuple[list[tuple], dict[Path, str]]:
        """What ``Task.take`` takes, its task before it, and what does not decode, with the reason."""
        asked, errors, pictures, views = [], {}, {}, {}
        for task, paths in self.groups[position]:
            key = task.key(paths)
            if not task.lacks(key):
                continue
            for path in paths:
                if (path, task.view) not in views and path not in errors:
                    try:
                        pictures[path] = pictures.get(path) or decode(path)
                        views[path, task.view] = task.view(pictures[path])
                    except UnreadableImage as error:
                        errors[path] = error.reason
            if not errors.keys() & set(paths):
                asked.append((task, key, paths, [views[path, task.view] for path in paths]))
        return asked, errors


def run_pass(
    groups: Sequence[Sequence[Job]], tasks: Sequence[Task], *, batch_size: int, workers: int
) -> dict[Path, str]:
    """Answer all jobs, those of a group from pictures that are read together, into the stores of their tasks.

    Returns the pictures that do not decode, with the reason.
    """
    errors: dict[Path, str] = {}
    read = prefetch(Groups(groups), range(len(groups)), workers)
    progress = {"unit": "img", "desc": "pictures", "disable": None, "leave": False, "file": sys.stderr}
    for asked, failed in tqdm(read, total=len(groups), **progress):
        errors |= failed
        for task, key, paths, images in asked:
            if task.lacks(key):
                task.take(key, paths, images, batch_size)
    for task in tasks:
        task.finish()
    return errors
