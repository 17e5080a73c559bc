"""What postprocessing starts from: stored originals and pre-explanations, of a run of main.py or the original's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import UserError
from ace_counterfactuals.core.data.imageset import Sample
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, to_tensor
from ace_counterfactuals.core.data.specs import UNKNOWN
from ace_counterfactuals.core.runs.experiment import CONFIG, read_config
from ace_counterfactuals.core.runs.floats import read_stored
from ace_counterfactuals.core.runs.layout import ResultFolder, no_such_experiment
from ace_counterfactuals.core.runs.records import Record
from ace_counterfactuals.core.runs.results import Pair, picture_size, read_pairs

KIND = "pre-explanation"


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture's files. path: of the picture in the data set.  label, prediction, target: -1 if unknown or free."""

    index: int
    path: Path
    label: int
    prediction: int
    target: int
    original: Path
    pre_explanation: Path


@dataclass(frozen=True, eq=False)
class StoredSample(Sample):
    """``image`` is the original, ``pre_explanation`` of the same shape."""

    pre_explanation: Tensor
    prediction: int
    target: int


@dataclass(frozen=True, eq=False)
class StoredSet:
    """The pictures of an experiment, decoded when asked for."""

    records: Sequence[Entry]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> StoredSample:
        entry = self.records[position]
        try:
            image, pre_explanation = to_tensor(decode(entry.original)), read_picture(entry.pre_explanation)
        except UnreadableImage as error:
            raise UnreadableImage(error.path, error.reason, entry.index) from None
        if image.shape != pre_explanation.shape:
            sizes = " and ".join(f"{picture.shape[2]} x {picture.shape[1]}" for picture in (image, pre_explanation))
            raise UnreadableImage(
                entry.pre_explanation, f"original and pre-explanation are {sizes} pixels", entry.index
            )
        return StoredSample(
            entry.index, entry.path, entry.label, image, pre_explanation, entry.prediction, entry.target
        )


def read_picture(path: Path) -> Tensor:
    return read_stored(path) if path.suffix == ".npy" else to_tensor(decode(path))


@dataclass(frozen=True)
class Source:
    """An experiment with stored pre-explanations.

    described: what its config.yaml holds; None for a folder of the original program.
    """

    results: ResultFolder
    entries: list[Entry]
    described: dict | None

    @property
    def rounded(self) -> int:
        """How many pre-explanations are there with 8 bits alone."""
        return sum(entry.pre_explanation.suffix != ".npy" for entry in self.entries)


def open_source(output: Path, exp_name: str, data_dir: str | None) -> Source:
    """The experiment's finished pictures, by index.  Raises UserError if there is nothing to refine.

    data_dir: where they came from, which names them; None is the run's own.
    """
    results = ResultFolder(output, exp_name)
    if not results.root.is_dir():
        raise no_such_experiment(output, exp_name)
    ours = (results.root / CONFIG).exists() or results.records_folder.exists()
    described = read_config(results.root) if ours else None
    data = Path(data_dir or (described["flags"].get("data_dir", "") if ours else "")).expanduser()
    entries = entries_of_records(results, data) if ours else entries_of_infos(results, data)
    if not entries:
        raise UserError(f"{results.root} has no finished picture; run main.py with this --exp_name first")
    missing = [entry for entry in entries if not (entry.pre_explanation.exists() and entry.original.exists())]
    if missing:
        names = ", ".join(f"{entry.index:07d}" for entry in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"{results.root}: {len(missing)} of {len(entries)} finished pictures have no stored original or "
            f"pre-explanation: {names}; main.py keeps them with --save_images True"
        )
    return Source(results, entries, described)


def entries_of_records(results: ResultFolder, data_dir: Path) -> list[Entry]:
    finished, _ = results.read()
    return [entry_of(results, record, data_dir) for record in finished.values()]


def entry_of(results: ResultFolder, record: Record, data_dir: Path) -> Entry:
    png = results.path(KIND, record.folder(KIND), "CF", record.index)
    npy = results.floats(record.folder(KIND), record.index)
    originals = results.originals(record.index, record.correct)
    return Entry(
        index=record.index,
        path=data_dir / record.file,
        label=record.label,
        prediction=record.prediction,
        target=record.target,
        original=next(filter(Path.exists, originals), originals[0]),
        pre_explanation=npy if npy.exists() else png,
    )


def entries_of_infos(results: ResultFolder, data_dir: Path) -> list[Entry]:
    """Of a folder of the original program, which keeps no records; a picture's file is where its original lies."""
    return [entry_of_pair(results, pair, data_dir) for pair in read_pairs(results.output, f"{results.exp_name}/{KIND}")]


def entry_of_pair(results: ResultFolder, pair: Pair, data_dir: Path) -> Entry:
    info = pair.read_info()
    if not pair.original.stem.isdecimal():
        raise UserError(f"{pair.original}: wanted a picture named by its index, such as 0000012.png")
    return Entry(
        index=int(pair.original.stem),
        path=data_dir / pair.original.relative_to(results.output),
        label=int(info["label"]),
        prediction=int(info["pred"]),
        target=int(info["target"]),
        original=pair.original,
        pre_explanation=pair.counterfactual,
    )


def check_size(entry: Entry, image_size: int) -> None:
    """Refuse an ``--image_size`` that is not the stored pictures'."""
    width, height = picture_size(entry.original)
    if height != image_size or width not in (image_size, 2 * image_size):
        raise UserError(
            f"--image_size {image_size}: {entry.original} is {width} x {height} pixels; give --image_size {height}"
        )


def stack_targets(samples: Sequence[StoredSample]) -> Tensor | None:
    """(N,), or None where the targets were left free, as they are for all pictures of a run or for none."""
    targets = torch.tensor([sample.target for sample in samples])
    return None if (targets == UNKNOWN).all() else targets
