"""The pictures of a classifier's training: held in memory where they fit, else decoded anew for each batch."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from ace_counterfactuals.core.base.memory import free_bytes, in_bytes
from ace_counterfactuals.core.base.runtime import notice
from ace_counterfactuals.core.data.imageset import ImageSet, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.training.questions import Labelled

HELD = 0.4  # of the free memory that pictures may take, twice, while they are gathered
Fed = tuple[Tensor, Tensor]
"""Pictures (N, C, H, W) uint8, and their labels (N,) or (N, outputs)"""


@dataclass(frozen=True, eq=False)
class Feed:
    """Pictures by position.  held: all that can be read, (n, C, H, W) uint8; None: they are decoded when asked for,
    ``ahead`` of them by ``workers`` threads."""

    images: ImageSet
    labels: Tensor
    workers: int
    ahead: int
    held: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, chosen: Iterable[Sequence[int] | np.ndarray]) -> Iterator[Fed]:
        """Of the positions of each batch.  A picture that cannot be read is told and left out."""
        if self.held is not None:
            yield from ((self.held[positions], self.labels[positions]) for positions in chosen)
            return
        ahead, chosen = itertools.tee(chosen)
        stream = map(int, itertools.chain.from_iterable(ahead))
        samples = iter(prefetch(self.images, stream, self.workers, ahead=self.ahead))
        for positions in chosen:
            pictures, kept = read(itertools.islice(samples, len(positions)))
            yield pictures, self.labels[np.asarray(positions)[kept]]

    def in_order(self, size: int) -> Iterator[Fed]:
        """All of them, ``size`` at a time."""
        return self.batches(np.arange(len(self))[i : i + size] for i in range(0, len(self), size))


def feed(labelled: Labelled, workers: int, shape: tuple[int, int], ahead: int) -> Feed:
    """Of pictures of this height and width, held if memory suffices.  Raises ValueError where none can be read."""
    images, labels = labelled.images, labelled.labels
    size, room = len(images) * images.channels * shape[0] * shape[1], free_bytes(torch.device("cpu"))
    if size > HELD * room:
        notice(f"{in_bytes(size)} of pictures for {in_bytes(room)} of memory: they are decoded anew for each batch")
        return Feed(images, labels, workers, ahead)
    samples = tqdm(prefetch(images, range(len(images)), workers), "decoding", len(images), disable=None)
    pictures, kept = read(samples)
    return Feed(images, labels[kept], workers, ahead, pictures)


def read(samples: Iterable) -> tuple[Tensor, list[int]]:
    """Pictures (n, C, H, W) uint8, and which of the samples they are.  Raises ValueError where there is none."""
    pictures, kept, error = [], [], None
    for i, sample in enumerate(samples):
        if isinstance(sample, UnreadableImage):
            error = sample
            notice(f"left out: {sample}")
            continue
        pictures.append((sample.image * 255).round().byte())
        kept.append(i)
    if not pictures:
        raise ValueError(f"no picture can be read, as {error}")
    return torch.stack(pictures), kept


def to_input(pictures: Tensor, device: torch.device) -> Tensor:
    """uint8 -> [-1, 1]."""
    return pictures.to(device).float() / 127.5 - 1


def augmentation(names: str, height: int, width: int) -> Callable[[Tensor, int, int], Tensor] | None:
    """(pictures uint8, seed, step) -> the same, each changed as the step's number draws it; None for no names."""
    ratio = width / height
    crop = v2.RandomResizedCrop((height, width), scale=(0.7, 1.0), ratio=(0.9 * ratio, 1.1 * ratio))
    colour = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03)
    known = {"crop": crop, "colour": colour, "rand": v2.RandAugment()}
    if not names:
        return None
    change = v2.Compose([known[name] for name in names.split(",")])

    def changed(pictures: Tensor, seed: int, step: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # dropout's masks stay as they are
            torch.manual_seed(int(np.random.SeedSequence([seed, step, 2]).generate_state(1, np.uint64)[0] >> 1))
            return torch.stack([change(picture) for picture in pictures])

    return changed
