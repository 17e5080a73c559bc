"""The table of data sets: one entry each, over a function that reads where its pictures and labels are.

Imports no torch: settings take their choices from here.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ace_counterfactuals.core.base.settings import FlagError, did_you_mean
from ace_counterfactuals.core.data import annotations, arrow, folders
from ace_counterfactuals.core.data.annotations import Faces
from ace_counterfactuals.core.data.folders import first, found, require
from ace_counterfactuals.core.data.labels import listed, resolve_name
from ace_counterfactuals.core.data.specs import UNKNOWN, DatasetSpec, Listing, PictureFile

if TYPE_CHECKING:
    from ace_counterfactuals.core.data.config import PicturesConfig

TRAIN, VALIDATION, TEST = 0, 1, 2  # CelebA's partitions
BDD_ACTIONS = ("forward", "slow_down", "left", "right")


def spec_of(name: str) -> DatasetSpec:
    """The entry of a data set; of a name that is not in the table one without facts, whose reader refuses the name."""

    def refuse(*_) -> Listing:
        there = ", ".join(DATASETS)
        raise FlagError("dataset", f"{name}: no such data set{did_you_mean(name, DATASETS)}; there are {there}")

    return DATASETS.get(name) or DatasetSpec(refuse)


def celeba_attributes(data_dir: str | Path, dataset: str = "CelebA", *, partition: int = TRAIN) -> np.ndarray:
    """(n, 40) int8 of 0 and 1: the attributes of a partition, whether its pictures are there or not.

    ``PictureFile.index`` of the pictures of that partition, as ``open_dataset`` reads it, is the row.
    """
    read = spec_of(dataset).faces
    if read is None:
        raise FlagError("dataset", f"{dataset}: its pictures have no attributes; wanted one of CelebA's")
    faces = read(folders.existing(data_dir))
    rows = [[value == "1" for value in values] for name, values in faces.rows if faces.partition.get(name) == partition]
    if not rows:
        raise ValueError(f"{data_dir}: no picture of dataset {dataset} is in partition {partition}")
    return np.array(rows, np.int8)


def _faces(
    oracle: str, faces: Callable[[Path], Faces], explained: int, heads: Mapping[int, int], mini: bool = False
) -> DatasetSpec:
    """CelebA as read by ``faces``; ``explained``: its partition to explain, of which ``mini`` draws 1,000 pictures."""

    def read(folder: Path, query: int | str, train: bool) -> Listing:
        part, annotated = TRAIN if train else explained, faces(folder)
        queries = {i: name for i, name in enumerate(annotated.attributes) if train or i in heads}
        query = _query(queries, query, optional=train)
        labelled, without = [], []
        for file, values in annotated.rows:
            partition = annotated.partition.get(file)
            if partition is None:
                without.append(file)
            elif partition == part:
                labelled.append((file, UNKNOWN if query == UNKNOWN else int(values[query] == "1")))
        if mini and not train and labelled:
            drawn = random.Random(5).choices(range(len(labelled)), k=1000)
            labelled = [labelled[i] for i in sorted(drawn)]
        records, notices = _present(annotated.pictures, labelled, f"partition {part}")
        notices += _notices({f"{len(without)} annotated pictures are in no partition and left out": without})
        return _binary(annotated.attributes, query, records, notices)

    return DatasetSpec(read, binary=True, faces=faces, oracle=oracle, heads=heads)


def _read_bdd100k(folder: Path, query: int | str, train: bool) -> Listing:
    query = _query(dict(enumerate(BDD_ACTIONS)), query, optional=True)
    if train:
        where = folder / "images/100k/train"
        if not where.is_dir():
            where = folder / "train"
            require(folder, "train/")
        names = sorted(
            os.path.relpath(os.path.join(parent, file), where)
            for parent, _, files in os.walk(where)
            for file in filter(folders.is_picture, files)
        )
    else:
        where = folder / "images/100k/val"
        require(folder, "images/100k/val/")
        names = [name for name in folders.picture_names(where) if name.lower().endswith(".jpg")]
    return _binary(BDD_ACTIONS, query, *_present(where, [(name, 1) for name in names], "the set"))


def _read_bdd_oia(folder: Path, query: int | str, train: bool) -> Listing:
    table = f"{'train' if train else 'val'}_25k_images_actions.json"
    require(folder, "data/", table)
    query = _query(dict(enumerate(BDD_ACTIONS)), query, optional=train)
    labelled = sorted(
        (name, UNKNOWN if query == UNKNOWN else actions[query])
        for name, actions in annotations.bdd_oia(folder / table)
        if not any(actions[4:])  # the fifth action: no decision can be made
    )
    return _binary(BDD_ACTIONS, query, *_present(folder / "data", labelled, table))


def _read_imagenet(folder: Path, query: int | str, train: bool) -> Listing:
    ids, names = imagenet_classes()
    classes = folders.class_folders(folder)
    if not classes:
        raise ValueError(f"{folder}: wanted a folder of pictures a class; {found(folder)}")
    known = {name: ids[name] for name in classes if name in ids}
    free = sorted({*range(len(ids) + len(classes))} - {*known.values()})
    others = dict(zip((name for name in classes if name not in ids), free, strict=False))
    said = f"{len(others)} of {len(classes)} class folders are not named by the WordNet id of one of ImageNet's 1,000"
    return Listing(
        records=_in_class_folders(folder, classes, known | others),
        class_names=tuple((dict(enumerate(names)) | {label: name for name, label in others.items()}).values()),
        aliases=dict(ids) | others,
        notices=(
            *_notices({f"{said} classes and are numbered in sorted order": _numbered(others)}),
            *_unread([folder / name for name in classes]),
        ),
    )


@cache
def imagenet_classes() -> tuple[Mapping[str, int], tuple[str, ...]]:
    """WordNet id -> label of the 1,000 classes, and their names by label."""
    from torchvision.models import ResNet50_Weights

    ids = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="ascii").split()
    return {name: label for label, name in enumerate(ids)}, tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])


def _read_folder(folder: Path, query: int | str, train: bool, pictures: "PicturesConfig") -> Listing:
    suffixes = folders.SUFFIXES + ((folders.NUMBERS,) if pictures.span else ())
    classes, loose = folders.class_folders(folder, suffixes), folders.picture_names(folder, suffixes)
    if not classes and not loose:
        unread = "".join(f"; {said}" for said in _unread([folder], suffixes))
        raise ValueError(f"{folder}: wanted pictures, or a folder of pictures a class; {found(folder)}{unread}")
    if not classes:
        records = [PictureFile(index, folder / name, UNKNOWN) for index, name in enumerate(loose)]
        said = f"no class folders in {folder}: the labels of its {len(records)} pictures are unknown (-1)"
        notice = f"{said}; where labels count, the classifier's predictions do"
        return Listing(records=records, notices=(notice, *_unread([folder], suffixes)))
    labels = {name: label for label, name in enumerate(classes)}
    empty = [name for name, pictures in classes.items() if not pictures]
    odd = {name: label for name, label in labels.items() if name.isdecimal() and int(name) != label}
    about = {
        f"{len(empty)} of {len(classes)} class folders have no picture": empty,
        f"{len(loose)} pictures beside the class folders are left out": loose,
        "class folders are labelled in the sorted order of their names, not by the numbers in them": _numbered(odd),
    }
    records, notices = _in_class_folders(folder, classes, labels), _notices(about)
    places = [folder, *(folder / name for name in classes)]
    return Listing(records=records, class_names=tuple(classes), notices=(*notices, *_unread(places, suffixes)))


def _numbered(labels: Mapping[str, int]) -> list[str]:
    return [f"{name} = {label}" for name, label in labels.items()]


def _notices(about: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What is said of which names, where there are any."""
    return tuple(f"{text}: {first(names)}" for text, names in about.items() if names)


def _unread(places: Sequence[Path], suffixes: tuple[str, ...] = folders.SUFFIXES) -> tuple[str, ...]:
    """Notices of the pictures that are not read.  suffixes: of those that are."""
    numbers = () if folders.NUMBERS in suffixes else (folders.NUMBERS,)
    names = [name for place in places for name in folders.picture_names(place, folders.UNREAD + numbers)]
    measured = [name for name in names if name.lower().endswith(folders.NUMBERS)]
    others = [name for name in names if not name.lower().endswith(folders.NUMBERS)]
    about = {
        f"{len(others)} pictures of formats that are not read are left out; save them as PNG": others,
        f"{len(measured)} files of numbers are left out; image_range LOW,HIGH reads them": measured,
    }
    return _notices(about)


def _read_csv(folder: Path, query: int | str, train: bool, pictures: "PicturesConfig") -> Listing:
    """Classes by number or name; no labels where no column is named."""
    columns = pictures.columns
    require(folder, columns.file)
    rows = annotations.csv_rows(folder / columns.file, columns)
    labels, names = annotations.classes_of(folder / columns.file, rows) if columns.labels else ({}, ())
    labelled = [(row.image, labels.get(row.labels, UNKNOWN)) for row in rows if row.taken]
    records, notices = _present(folder, labelled, columns.file)
    return Listing(records=records, class_names=names or None, notices=notices)


def _read_hugging_face(folder: Path, query: int | str, train: bool, pictures: "PicturesConfig") -> Listing:
    return arrow.read(folder, pictures.columns)


def _read_csv_attributes(folder: Path, query: int | str, train: bool, pictures: "PicturesConfig") -> Listing:
    """Attributes that a picture has or has not, a column each."""
    columns = pictures.columns
    require(folder, columns.file)
    query = _query(dict(enumerate(columns.labels)), query, optional=train)
    rows = annotations.csv_rows(folder / columns.file, columns)
    decided = annotations.attributes_of(folder / columns.file, rows)
    labelled = [(row.image, UNKNOWN if query == UNKNOWN else decided[row][query]) for row in rows if row.taken]
    return _binary(columns.labels, query, *_present(folder, labelled, columns.file))


def _query(names: Mapping[int, str], query: int | str, optional: bool) -> int:
    """The attribute that a binary set is opened for."""
    label = resolve_name(names, query, "label_query", "the data set")
    if label == UNKNOWN and not optional:
        raise FlagError("label_query", f"-1: the data set needs an attribute; choose one of {listed(names)}")
    return label


def _binary(attributes: Sequence[str], query: int, records: list[PictureFile], notices: tuple[str, ...]) -> Listing:
    names = None if query == UNKNOWN else (f"not {attributes[query]}", attributes[query])
    return Listing(records=records, class_names=names, query=query, notices=notices)


def _present(folder: Path, labelled: list[tuple[str, int]], source: str) -> tuple[list[PictureFile], tuple[str, ...]]:
    """Records of the annotated pictures that are in ``folder``, and a notice of the others.

    A picture's index counts the missing ones too: fetching them later changes no name.
    """
    parents = {os.path.dirname(name) for name, _ in labelled}  # a listing each, where asking of each file takes long
    there = {
        os.path.join(parent, name)
        for parent in parents
        if os.path.isdir(folder / parent)
        for name in os.listdir(folder / parent)
    }
    records = [PictureFile(i, folder / name, label) for i, (name, label) in enumerate(labelled) if name in there]
    missing = [name for name, _ in labelled if name not in there]
    if not records:
        which = f" of {source}, such as {missing[0]}" if missing else ""
        raise ValueError(f"{folder}: none of the {len(missing)} pictures{which}; {found(folder)}")
    said = f"{len(missing)} of the {len(labelled)} pictures of {source} are missing in {folder} and skipped"
    return records, _notices({said: missing})


def _in_class_folders(folder: Path, classes: Mapping[str, list[str]], labels: Mapping[str, int]) -> list[PictureFile]:
    files = [(name, file) for name, pictures in classes.items() for file in pictures]
    return [PictureFile(index, folder / name / file, labels[name]) for index, (name, file) in enumerate(files)]


def _driving(read: Callable[[Path, int | str, bool], Listing]) -> DatasetSpec:
    return DatasetSpec(read, binary=True, wide=True, mirrored=False, heads={i: i for i in range(len(BDD_ACTIONS))})


ATTRIBUTES = "CSVAttributes"
EVERY_ATTRIBUTE = {i: i for i in range(annotations.CELEBA_ATTRIBUTES)}
DATASETS = {
    "CelebA": _faces("CelebA", annotations.celeba, VALIDATION, EVERY_ATTRIBUTE),
    "CelebAMV": _faces("CelebA", annotations.celeba, VALIDATION, EVERY_ATTRIBUTE, mini=True),
    "CelebAHQ": _faces("CelebA-HQ", annotations.celebahq, TEST, {20: 0, 31: 1, 39: 2}),
    "BDD100k": _driving(_read_bdd100k),
    "BDDOIA": _driving(_read_bdd_oia),
    "ImageNet": DatasetSpec(_read_imagenet, arch="resnet50", num_classes=1000),
    "Folder": DatasetSpec(_read_folder, settled=True, upright=True, any_channels=True),
    "CSV": DatasetSpec(_read_csv, settled=True, upright=True, any_channels=True),
    ATTRIBUTES: DatasetSpec(_read_csv_attributes, settled=True, binary=True, upright=True, any_channels=True),
    "HuggingFace": DatasetSpec(_read_hugging_face, settled=True, upright=True, any_channels=True),
}
"""Name -> what is known of it. A module of yours may add its own: ``DATASETS["Mine"] = DatasetSpec(read)``."""
