"""What a run has to do, and the pictures that it has in hand: read, some at a time, and put on the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from os.path import relpath
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.data.imageset import ImageSet, Sample, prefetch
from ace_counterfactuals.core.data.regions import Region
from ace_counterfactuals.core.method.attacking import OnIteration, full
from ace_counterfactuals.core.method.explain import Explanation
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.keeping import Kept
from ace_counterfactuals.core.runs.layout import Pictures, ResultFolder


@dataclass(frozen=True)
class Given:
    """Pictures to explain, on the device: those of the samples.

    image, indices and region: with deterministic kernels, which may go by a batch's size, the last picture is repeated
    up to the batch size.  region: (N or 1, 1, H, W) bool.
    """

    samples: list[Sample]
    image: Tensor
    indices: list[int]
    region: Tensor | None


More = Callable[[int], Given | None]
"""How many pictures there is room for -> up to so many, None where there are no more."""

Found = Iterator[tuple[list[int], Explanation]]
"""The indices of pictures that are done, and what was found of these, and perhaps of repeated ones after them."""


@dataclass(frozen=True)
class Work:
    """Pictures to explain, or to refine again, into a result folder that exists.

    images: of this chunk; total: pictures of all chunks.  region: where they may change, None is everywhere.
    explain: pictures, more of them where others are done before the rest, what is kept of the attack -> what was found.
    draw: what to store of the i-th of these.  on_iteration: told of each iteration of an attack, too.
    """

    config: MainConfig
    results: ResultFolder
    images: ImageSet
    total: int
    device: torch.device
    region: Region | None
    explain: Callable[[Given, More, Kept, OnIteration], Found]
    draw: Callable[[Explanation, int], Pictures]
    on_iteration: OnIteration | None = None


def file_name(config: MainConfig, path: Path) -> str:
    """A picture's path below the data folder."""
    return Path(relpath(path, Path(config.data.data_dir).expanduser())).as_posix()


class Hand:
    """The missing pictures of a run, in their order, each of them once in hand.

    missing: index -> position.  samples: by index, those that were given.
    """

    def __init__(self, work: Work, missing: dict[int, int], kept: Kept):
        self.work, self.samples = work, dict[int, Sample]()
        self.begun = [*self._begun(missing, kept)]
        taken = {sample.index for samples in self.begun for sample in samples}
        self.stream = self._readable([position for index, position in missing.items() if index not in taken])

    def batches(self) -> Iterator[Given]:
        """What was in hand when another run ended, as it was, and then the others, as far as ``more`` leaves them."""
        yield from map(self._given, self.begun)
        while given := self.more(self.work.config.run.batch_size):
            yield given

    def more(self, room: int) -> Given | None:
        """The next pictures."""
        samples = [*islice(self.stream, room)]
        return self._given(samples) if samples else None

    def _given(self, samples: list[Sample]) -> Given:
        work = self.work
        self.samples |= {sample.index: sample for sample in samples}
        padded = full(samples, work.config.run.batch_size)
        image = torch.stack([sample.image for sample in padded]).to(work.device)
        files = [file_name(work.config, sample.path) for sample in padded]
        region = work.region and work.region.masks(files, image)
        return Given(samples, image, [sample.index for sample in padded], region)

    def _begun(self, missing: dict[int, int], kept: Kept) -> Iterator[list[Sample]]:
        """What was in hand; of an attack that was, some pictures may be written."""
        images = self.work.images
        place = {entry.index: i for i, entry in enumerate(images.records)}
        for indices in kept.batches(place, missing):
            read = prefetch(images, [place[i] for i in indices], 0)
            if len(samples := [sample for sample in read if isinstance(sample, Sample)]) == len(indices):
                yield samples
            else:
                kept.forget(indices, "is of a picture that cannot be read now")

    def _readable(self, positions: list[int]) -> Iterator[Sample]:
        """The pictures at ``positions``; an unreadable one is named, remembered and passed over."""
        for sample in prefetch(self.work.images, positions, self.work.config.run.num_workers):
            if isinstance(sample, Sample):
                yield sample
            else:
                notice(f"skipped: {sample}")
                self.work.results.write_skipped(sample.index, str(sample.path), sample.reason)
