"""What is refined again: stored originals and pre-explanations, of a run of main.py or of the original program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ace_counterfactuals.core.base.settings import bounds
from ace_counterfactuals.core.data.folders import first
from ace_counterfactuals.core.data.imageset import ImageSet, Sample
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, to_tensor
from ace_counterfactuals.core.data.specs import PictureFile
from ace_counterfactuals.core.method.config import by_itself
from ace_counterfactuals.core.runs.described import CONFIG, read_config
from ace_counterfactuals.core.runs.experiment import Pair, read_pairs
from ace_counterfactuals.core.runs.layout import ResultFolder, no_such_experiment
from ace_counterfactuals.core.runs.recording import read_stored
from ace_counterfactuals.core.runs.records import Record

KIND = "pre-explanation"


@dataclass(frozen=True, slots=True)
class StoredPicture(PictureFile):
    """A picture of the data set with what is stored of it. prediction, target: -1 where free."""

    prediction: int
    target: int
    original: Path
    pre_explanation: Path


@dataclass(frozen=True, eq=False)
class StoredSample(Sample):
    """``image`` is the original, ``pre_explanation`` of the same shape and range."""

    pre_explanation: Tensor
    prediction: int
    target: int


class StoredSet(ImageSet):
    """The pictures of a run, each decoded to a StoredSample when asked for."""

    records: Sequence[StoredPicture]

    def __getitem__(self, position: int) -> StoredSample:
        """Raises UnreadableImage for files that do not decode or are not of one size."""
        stored = self.records[position]
        path = stored.pre_explanation
        try:
            original, units = stored.original, stored.original.with_suffix(".npy")
            kept = self.span is not None and units.exists()
            image = self.picture(units) if kept else to_tensor(decode(original))[: self.channels]
            numbers = path.suffix == ".npy"
            pre_explanation = read_stored(path) if numbers else to_tensor(decode(path))[: self.channels]
        except UnreadableImage as error:
            raise UnreadableImage(error.path, error.reason, stored.index) from None
        if image.shape != pre_explanation.shape:
            sizes = " and ".join(f"{picture.shape[2]} x {picture.shape[1]}" for picture in (image, pre_explanation))
            raise UnreadableImage(path, f"original and pre-explanation are {sizes} pixels", stored.index)
        about = (stored.index, stored.path, stored.label)
        return StoredSample(*about, image, pre_explanation, stored.prediction, stored.target)


@dataclass(frozen=True)
class AttackedRun:
    """A run whose pre-explanations are refined again.

    images: its finished pictures, by index.  settings: what its config.yaml holds, the flags of its refinement in place
    of the attack's; None for the original program's.
    """

    results: ResultFolder
    images: StoredSet
    settings: dict | None


def open_run(output: Path, exp_name: str, data_dir: str | None) -> AttackedRun:
    """A run with its finished pictures.  Raises ValueError if there is nothing to refine.

    data_dir: where the pictures came from, which a region may go by; None is the run's own.
    """
    results, settings = ResultFolder(output, exp_name), None
    if not results.root.is_dir():
        raise no_such_experiment(output, exp_name)
    if (results.root / CONFIG).exists() or results.records_folder.exists():
        settings = read_config(results.root)
        settings = settings | {"flags": by_itself(settings["flags"])}
        data = Path(data_dir or settings["flags"].get("data_dir", "")).expanduser()
        pictures = [picture_of_record(results, record, data) for record in results.read()[0].values()]
    else:
        data = Path(data_dir or "").expanduser()
        pictures = [picture_of_pair(results, pair, data) for pair in read_pairs(output, f"{exp_name}/{KIND}")]
    if not pictures:
        raise ValueError(f"{results.root} has no finished picture; run main.py with this exp_name first")
    missing = [f"{p.index:07d}" for p in pictures if not (p.original.exists() and p.pre_explanation.exists())]
    if missing:
        lacking = f"{len(missing)} of {len(pictures)} finished pictures have no stored original or pre-explanation"
        names = first(missing, 5)
        raise ValueError(f"{results.root}: {lacking}: {names}; main.py keeps them with save_images True")
    channels = settings["flags"]["image_channels"] if settings else 3
    span = bounds(settings["flags"]["image_range"]) if settings else None
    images = StoredSet(name=exp_name, records=pictures, transform=lambda image: image, channels=channels, span=span)
    return AttackedRun(results, images, settings)


def picture_of_record(results: ResultFolder, record: Record, data_dir: Path) -> StoredPicture:
    png = results.path(KIND, record.folder(KIND), "CF", record.index)
    npy = results.floats(record.folder(KIND), record.index)
    original = results.originals(record.index, record.correct)[0]
    decided = (record.label, record.prediction, record.target)
    return StoredPicture(record.index, data_dir / record.file, *decided, original, npy if npy.exists() else png)


def picture_of_pair(results: ResultFolder, pair: Pair, data_dir: Path) -> StoredPicture:
    """Of the original program, which keeps no records; a picture's file is taken to be where its original lies."""
    if not pair.original.stem.isdecimal():
        raise ValueError(f"{pair.original}: wanted a picture named by its index, such as 0000012.png")
    info, path = pair.read_info(), data_dir / pair.original.relative_to(results.output)
    decided = (int(info[name]) for name in ("label", "pred", "target"))
    return StoredPicture(int(pair.original.stem), path, *decided, pair.original, pair.counterfactual)
