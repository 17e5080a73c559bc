"""Result folders read back as pairs of an original and its counterfactual, the original program's folders too."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ace_counterfactuals.core.base.runtime import notice
from ace_counterfactuals.core.data.folders import picture_names
from ace_counterfactuals.core.data.imageset import ImageSet, prefetch
from ace_counterfactuals.core.data.pictures import FORMATS, UnreadableImage
from ace_counterfactuals.core.data.specs import UNKNOWN, PictureFile
from ace_counterfactuals.core.runs.layout import FOLDERS

Transform = Callable[[Image.Image], Image.Image]
INFO = ("label", "pred", "target", "cf pred", "l_inf", "l_1")


@dataclass(frozen=True)
class Population:
    """The pictures that a figure is computed on, as folders of an experiment."""

    name: str
    folders: tuple[str, ...]


FLIPPED = Population("CC+IC, CCF", ("CC/CCF", "IC/CCF"))
CORRECT = Population("CC, CCF+ICF", ("CC/CCF", "CC/ICF"))
EVERY = Population("CC+IC, CCF+ICF", FOLDERS)


@dataclass(frozen=True)
class Pair:
    """folder: such as CC/CCF."""

    name: str
    folder: str
    original: Path
    counterfactual: Path

    @property
    def info(self) -> Path:
        return (self.counterfactual.parents[1] / "Info" / self.name).with_suffix(".txt")

    def read_info(self) -> dict[str, float]:
        """The Info file, as ``main.py`` and the original program write it.  A free target is -1."""
        try:
            values = dict(line.split(": ") for line in self.info.read_text().splitlines())
            return {name: float(values[name]) for name in INFO}
        except (ValueError, KeyError):
            raise ValueError(f"{self.info}: wanted a line 'name: number' for each of {', '.join(INFO)}") from None


def find_experiment(output: Path, exp_name: str) -> Path:
    """The folder that holds CC and IC: ``Results/EXP``, or ``Results/EXP/explanation`` where that holds them.

    Raises ValueError naming the experiments that are there.
    """
    results = output / "Results"
    if not results.is_dir():
        raise ValueError(f"--output-path {output}: no results there, wanted a folder Results in it")
    for root in (results / exp_name, results / exp_name / "explanation"):
        if any((root / folder).is_dir() for folder in FOLDERS):
            if root.name != Path(exp_name).name:
                notice(f"--exp-name {exp_name} is read as {exp_name}/explanation")
            return root
    found = (path for depth in (1, 2, 3) for path in results.glob("*/" * depth + "[CI]C"))
    there = sorted({path.parent.relative_to(results).as_posix() for path in found})
    listed = ", ".join(there) or "none"
    raise ValueError(f"--exp-name {exp_name}: no such experiment in {results}; there are: {listed}")


def read_pairs(output: Path, exp_name: str, population: Population = EVERY) -> list[Pair]:
    """The pairs of an experiment that are in the population, by name; no file is opened.

    Raises ValueError for counterfactuals whose original is missing, and for names that are in two folders.
    """
    root = find_experiment(output, exp_name)
    stored = stored_originals(output)
    pairs, orphans = {}, []
    for folder in FOLDERS:
        place = root / folder / "CF"
        for name in picture_names(place) if place.is_dir() else ():
            own, other = ("Correct", "Incorrect") if folder.startswith("CC") else ("Incorrect", "Correct")
            original = stored[own].get(name) or stored[other].get(name)  # another classifier moves it
            if original is None:
                orphans.append(f"{folder}/CF/{name}")
            elif name in pairs:
                both = f"{pairs[name].folder} and {folder}"
                raise ValueError(f"{root}: {name} is in both {both}, one of them left by an earlier run; delete it")
            else:
                pairs[name] = Pair(name, folder, original, place / name)
    if orphans:
        shown = ", ".join(orphans[:5]) + (", ..." if len(orphans) > 5 else "")
        raise ValueError(f"{root}: {len(orphans)} counterfactuals have no original in {output / 'Original'}: {shown}")
    return [pair for _, pair in sorted(pairs.items()) if pair.folder in population.folders]


def stored_originals(output: Path) -> dict[str, dict[str, Path]]:
    """Correct and Incorrect -> name -> path."""
    folders = {name: output / "Original" / name for name in ("Correct", "Incorrect")}
    return {
        name: {file: folder / file for file in picture_names(folder)} if folder.is_dir() else {}
        for name, folder in folders.items()
    }


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


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=FORMATS) as image:
        return image.size


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
