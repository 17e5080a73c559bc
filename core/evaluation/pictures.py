"""The pictures that a figure is computed on: which of an experiment, decoded in batches, as features of a network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ace_counterfactuals.core.data.imageset import ImageSet, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.data.specs import UNKNOWN, PictureFile
from ace_counterfactuals.core.runs.experiment import Pair, picture_size
from ace_counterfactuals.core.runs.layout import FOLDERS

Transform = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Population:
    """The pictures that a figure is computed on, as folders of an experiment."""

    name: str
    folders: tuple[str, ...]


FLIPPED = Population("CC+IC, CCF", ("CC/CCF", "IC/CCF"))
CORRECT = Population("CC, CCF+ICF", ("CC/CCF", "CC/ICF"))
EVERY = Population("CC+IC, CCF+ICF", FOLDERS)


@dataclass(frozen=True)
class Reader:
    """Decodes pictures ahead, a batch at a time: (N, 3, H, W) in [0, 1] on ``device``."""

    device: torch.device
    batch_size: int
    workers: int = 0

    def pictures(self, paths: Sequence[Path], transform: Transform | None = None) -> Iterator[Tensor]:
        """Batches in order.  Raises ValueError naming a picture that does not decode, or is not of the first's size."""
        yield from self._batches(paths, self.batch_size, transform)

    def pairs(self, pairs: Sequence[Pair], transform: Transform | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of originals and of their counterfactuals."""
        paths = [path for pair in pairs for path in (pair.original, pair.counterfactual)]
        for batch in self._batches(paths, 2 * self.batch_size, transform):
            yield batch[::2], batch[1::2]

    def _batches(self, paths: Sequence[Path], size: int, transform: Transform | None) -> Iterator[Tensor]:
        entries = [PictureFile(i, path, UNKNOWN) for i, path in enumerate(paths)]
        images = ImageSet(name="results", records=entries, transform=transform or (lambda image: image))
        batch = []
        for sample in prefetch(images, range(len(entries)), self.workers):
            if isinstance(sample, UnreadableImage):
                raise sample
            self._check_size(sample.path, paths[0])
            batch.append(sample.image)
            if len(batch) == size:
                yield torch.stack(batch).to(self.device)
                batch = []
        if batch:
            yield torch.stack(batch).to(self.device)

    def _check_size(self, path: Path, first: Path) -> None:
        """By the header, which costs little: a transform may have made the sizes equal."""
        size, wanted = picture_size(path), picture_size(first)
        if size != wanted:
            width, height = size
            raise ValueError(f"{path} is {width} x {height}, but {first} is {wanted[0]} x {wanted[1]}: not comparable")


@torch.no_grad()
def features(network: nn.Module, batches: Iterator[Tensor]) -> Tensor:
    """The network's outputs on the CPU, in order."""
    return torch.cat([network(batch).cpu() for batch in batches])


@torch.no_grad()
def pair_features(network: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The network's outputs on originals and on counterfactuals, on the CPU."""
    both = [(network(original).cpu(), network(changed).cpu()) for original, changed in batches]
    originals, counterfactuals = zip(*both, strict=True)
    return torch.cat(originals), torch.cat(counterfactuals)
