"""The data sets: where each keeps its pictures and labels.  One small function a set, over core.imageset.

Annotations are read and folders are listed; no picture is opened before it is asked for.
"""

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights

from ace_counterfactuals.core.data import annotations
from ace_counterfactuals.core.data.annotations import found, require
from ace_counterfactuals.core.data.imageset import (
    UNKNOWN,
    EmptySelection,
    Entry,
    ImageSet,
    Sample,
    did_you_mean,
    prefetch,
    resolve_label,
    resolve_name,
    select,
)
from ace_counterfactuals.core.data.pictures import UnreadableImage, is_picture, picture_names, resize_crop, resize_wide
from ace_counterfactuals.models.classifiers import BINARY

__all__ = [
    "BINARY",
    "DATASETS",
    "UNKNOWN",
    "EmptySelection",
    "ImageSet",
    "Entry",
    "Sample",
    "UnreadableImage",
    "celeba_attributes",
    "imagenet_classes",
    "open_dataset",
    "prefetch",
    "resolve_label",
    "resolve_name",
    "select",
]

TRAIN, VALIDATION, TEST = 0, 1, 2  # CelebA's partitions
CELEBAHQ_QUERIES = (20, 31, 39)
FACES = {"CelebA": annotations.celeba, "CelebAMV": annotations.celeba, "CelebAHQ": annotations.celebahq}
BDD_ACTIONS = ("forward", "slow_down", "left", "right")


def open_dataset(
    name: str,
    data_dir: str | Path,
    *,
    image_size: int,
    label_query: int | str = UNKNOWN,
    split: str = "explain",
) -> ImageSet:
    """Every picture of the split, in the set's order.

    label_query: the attribute that labels a binary set, by index or name; the other sets do not look at it.
    split: "explain", or "train" for the partition that models are trained on, where the query may be left out.
    """
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS)
        raise ValueError(f"--dataset {name}: no such data set; {hint}choose one of {', '.join(DATASETS)}")
    assert split in ("explain", "train"), split
    if image_size < 1:
        raise ValueError(f"--image_size {image_size}: choose at least 1")
    images = DATASETS[name](_existing(data_dir, name), label_query, split == "train")
    return replace(images, transform=partial(images.transform, size=image_size))


def celeba_attributes(
    data_dir: str | Path, dataset: str = "CelebA", *, partition: int = TRAIN, flag: str = "--data_dir"
) -> Tensor:
    """(n, 40) int8 of 0 and 1: the attributes of a partition, whether its pictures are there or not.

    ``Entry.index`` of the pictures of that partition, as ``open_dataset`` reads it, is the row.
    """
    faces = FACES[dataset](_existing(data_dir, dataset, flag), flag)
    rows = bytearray()
    for name, values in faces.rows:
        if faces.partition.get(name) == partition:
            rows += bytes([value == "1" for value in values])
    if not rows:
        raise ValueError(f"{flag} {data_dir}: no picture of --dataset {dataset} is in partition {partition}")
    return torch.frombuffer(rows, dtype=torch.int8).view(-1, len(faces.attributes))


def _existing(data_dir: str | Path, dataset: str, flag: str = "--data_dir") -> Path:
    if not str(data_dir):
        raise ValueError(f"{flag} is empty: give the folder of --dataset {dataset}")
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{flag} {data_dir}: {'not a folder' if folder.exists() else 'no such folder'}")
    return folder


def _celeba(folder: Path, query: int | str, train: bool, name: str = "CelebA") -> ImageSet:
    part = TRAIN if train else TEST if name == "CelebAHQ" else VALIDATION
    faces = FACES[name](folder)
    valid = CELEBAHQ_QUERIES if name == "CelebAHQ" and not train else range(len(faces.attributes))
    query = _query({i: faces.attributes[i] for i in valid}, query, name, optional=train)
    labelled, without = [], []
    for file, values in faces.rows:
        partition = faces.partition.get(file)
        if partition is None:
            without.append(file)
        elif partition == part:
            labelled.append((file, UNKNOWN if query == UNKNOWN else int(values[query] == "1")))
    if name == "CelebAMV" and not train and labelled:
        drawn = random.Random(5).choices(range(len(labelled)), k=1000)
        labelled = [labelled[i] for i in sorted(drawn)]
    records, notices = _present(faces.pictures, labelled, f"partition {part} of --dataset {name}")
    if without:
        notices += (f"{len(without)} annotated pictures are in no partition and left out: {_first(without)}",)
    return _binary(name, records, resize_crop, query, faces.attributes, notices)


def _bdd100k(folder: Path, query: int | str, train: bool) -> ImageSet:
    query = _query(dict(enumerate(BDD_ACTIONS)), query, "BDD100k", optional=True)
    if train:
        where = folder / "images/100k/train"
        if not where.is_dir():
            where = folder / "train"
            require(folder, "BDD100k", "train/")
        names = sorted(
            os.path.relpath(os.path.join(parent, file), where)
            for parent, _, files in os.walk(where)
            for file in filter(is_picture, files)
        )
    else:
        where = folder / "images/100k/val"
        require(folder, "BDD100k", "images/100k/val/")
        names = [name for name in picture_names(where) if name.lower().endswith(".jpg")]
    records, notices = _present(where, [(name, 1) for name in names], "--dataset BDD100k", there=names)
    return _binary("BDD100k", records, resize_wide, query, BDD_ACTIONS, notices)


def _bdd_oia(folder: Path, query: int | str, train: bool) -> ImageSet:
    table = f"{'train' if train else 'val'}_25k_images_actions.json"
    require(folder, "BDDOIA", "data/", table)
    query = _query(dict(enumerate(BDD_ACTIONS)), query, "BDDOIA", optional=train)
    labelled = sorted(
        (name, UNKNOWN if query == UNKNOWN else actions[query])
        for name, actions in annotations.bdd_oia(folder / table)
        if not any(actions[4:])  # the fifth action: no decision can be made
    )
    records, notices = _present(folder / "data", labelled, table)
    return _binary("BDDOIA", records, resize_wide, query, BDD_ACTIONS, notices)


def _imagenet(folder: Path, query: int | str, train: bool) -> ImageSet:
    ids, names = imagenet_classes()
    classes = _class_folders(folder)
    if not classes:
        raise ValueError(
            f"--data_dir {folder}: --dataset ImageNet expects a folder of pictures a class; {found(folder)}"
        )
    known = {name: ids[name] for name in classes if name in ids}
    free = sorted({*range(len(ids) + len(classes))} - {*known.values()})
    unknown = dict(zip((name for name in classes if name not in ids), free, strict=False))
    aliases = known | unknown
    names = dict(enumerate(names)) | {label: name for name, label in unknown.items()}
    notices = ()
    if unknown:
        shown = _first(f"{name} = {label}" for name, label in unknown.items())
        notices = (
            f"{len(unknown)} of {len(classes)} class folders are not named by the WordNet id of one of ImageNet's "
            f"1,000 classes and are numbered in sorted order: {shown}",
        )
    records = _in_class_folders(folder, classes, aliases)
    return ImageSet(
        "ImageNet", False, records, resize_crop, tuple(names.values()), dict(ids) | aliases, notices=notices
    )


@cache
def imagenet_classes() -> tuple[Mapping[str, int], tuple[str, ...]]:
    """WordNet id -> label of the 1,000 classes, and their names by label."""
    ids = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="ascii").split()
    return {name: label for label, name in enumerate(ids)}, tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])


def _folder(folder: Path, query: int | str, train: bool) -> ImageSet:
    classes, loose = _class_folders(folder), picture_names(folder)
    if classes:
        labels = {name: label for label, name in enumerate(classes)}
        records = _in_class_folders(folder, classes, labels)
        empty = [name for name, pictures in classes.items() if not pictures]
        odd = [f"{name} = {label}" for name, label in labels.items() if name.isdecimal() and int(name) != label]
        about = {
            f"{len(empty)} of {len(classes)} class folders have no picture": empty,
            f"{len(loose)} pictures beside the class folders are left out": loose,
            "class folders are labelled in the sorted order of their names, not by the numbers in them": odd,
        }
        notices = tuple(f"{text}: {_first(names)}" for text, names in about.items() if names)
        return ImageSet("Folder", False, records, resize_crop, tuple(classes), upright=True, notices=notices)
    if not loose:
        raise ValueError(
            f"--data_dir {folder}: --dataset Folder expects pictures, or a folder of pictures a class; {found(folder)}"
        )
    records = [Entry(index, folder / name, UNKNOWN) for index, name in enumerate(loose)]
    notice = f"no class folders in {folder}: the labels of its {len(records)} pictures are unknown (-1)"
    return ImageSet("Folder", False, records, resize_crop, upright=True, notices=(notice,))


def _csv(folder: Path, query: int | str, train: bool) -> ImageSet:
    require(folder, "CSV", "labels.csv")
    labelled, names = annotations.csv_labels(folder / "labels.csv")
    labelled = [(os.path.normpath(name), label) for name, label in labelled]
    parents = {os.path.dirname(name) for name, _ in labelled}
    there = {
        os.path.join(parent, name)
        for parent in parents
        if os.path.isdir(folder / parent)
        for name in os.listdir(folder / parent)
    }
    records, notices = _present(folder, labelled, "labels.csv", there)
    return ImageSet("CSV", False, records, resize_crop, names or None, upright=True, notices=notices)


def _query(names: Mapping[int, str], query: int | str, dataset: str, optional: bool) -> int:
    """The attribute that a binary set is opened for."""
    label = resolve_name(names, query, "--label_query", f"--dataset {dataset}")
    if label == UNKNOWN and not optional:
        valid = ", ".join(f"{i} {name}" for i, name in names.items())
        raise ValueError(f"--label_query is not given: --dataset {dataset} needs an attribute; choose one of {valid}")
    return label


def _binary(
    name: str,
    records: list[Entry],
    transform: Callable,
    query: int,
    attributes: Sequence[str],
    notices: tuple[str, ...],
) -> ImageSet:
    names = None if query == UNKNOWN else (f"not {attributes[query]}", attributes[query])
    return ImageSet(name, True, records, transform, names, query=query, notices=notices)


def _present(
    folder: Path, labelled: list[tuple[str, int]], source: str, there: Iterable[str] | None = None
) -> tuple[list[Entry], tuple[str, ...]]:
    """Records of the annotated pictures that are in ``folder``, and a notice of the others.

    A picture's index counts the missing ones too: fetching them later changes no name.
    """
    there = set(os.listdir(folder) if there is None else there)
    records = [Entry(i, folder / name, label) for i, (name, label) in enumerate(labelled) if name in there]
    if not labelled:
        raise ValueError(f"--data_dir: no picture of {source} for {folder}; {found(folder)}")
    missing = [name for name, _ in labelled if name not in there]
    if not records:
        raise ValueError(
            f"--data_dir: of the {len(missing)} pictures of {source} (first: {missing[0]}) "
            f"none is in {folder}; {found(folder)}"
        )
    count = f"{len(missing)} of the {len(labelled)} pictures of {source}"
    return records, (f"{count} are missing in {folder} and skipped: {_first(missing)}",) if missing else ()


def _first(items: Iterable[str], most: int = 3) -> str:
    items = list(items)
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def _class_folders(folder: Path) -> dict[str, list[str]]:
    """Class name -> pictures, sorted; empty where no folder holds a picture."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    classes = {name: picture_names(folder / name) for name in names}
    return classes if any(classes.values()) else {}


def _in_class_folders(folder: Path, classes: Mapping[str, list[str]], labels: Mapping[str, int]) -> list[Entry]:
    files = [(name, file) for name, pictures in classes.items() for file in pictures]
    return [Entry(index, folder / name / file, labels[name]) for index, (name, file) in enumerate(files)]


DATASETS: dict[str, Callable[[Path, int | str, bool], ImageSet]] = {
    "CelebA": _celeba,
    "CelebAMV": partial(_celeba, name="CelebAMV"),
    "CelebAHQ": partial(_celeba, name="CelebAHQ"),
    "BDD100k": _bdd100k,
    "BDDOIA": _bdd_oia,
    "ImageNet": _imagenet,
    "Folder": _folder,
    "CSV": _csv,
}
