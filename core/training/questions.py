"""What a classifier is to tell of pictures: their class, one attribute, or all attributes at once."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.datasets import ATTRIBUTES, spec_of
from ace_counterfactuals.core.data.folders import existing
from ace_counterfactuals.core.data.imageset import ImageSet, open_pictures
from ace_counterfactuals.core.data.labels import resolve_name
from ace_counterfactuals.core.data.specs import UNKNOWN
from ace_counterfactuals.core.training.config import LabelledConfig, TrainClassifierConfig

DIVE = "dive"
DENSENET = "densenet121"  # which that is


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures with what is to be told of them.

    names: of the outputs.  labels: in the order of the pictures, (n,) int64 of classes that exclude each other, or
    (n, outputs) float32 of 0 and 1, of ``attributes`` that are independent.
    """

    images: ImageSet
    names: tuple[str, ...]
    labels: Tensor

    @property
    def attributes(self) -> bool:
        return self.labels.ndim == 2


def open_labelled(config: TrainClassifierConfig, folder: str, field: str) -> Labelled:
    """The pictures of ``folder``, which the setting ``field`` names: to train on, or those of ``val_dir`` to explain.

    Raises FlagError for a data set that has no labels, or none of this kind.
    """
    pictures = replace(config.pictures, data_dir=folder)
    split = "explain" if field == "val_dir" else "train"
    spec, dive, query = spec_of(pictures.dataset), config.training.arch == DIVE, pictures.label_query
    if dive and not spec.heads:
        raise FlagError("arch", f"{DIVE}: DiVE and STEEX have no classifier of dataset {pictures.dataset}")
    if dive and query != UNKNOWN:
        raise FlagError("label_query", f"{query}: arch {DIVE} tells {len(spec.heads)} attributes at once; leave it out")
    if spec.binary:
        return open_attributes(pictures, split, field, list(spec.heads) if dive else None)
    if query != UNKNOWN:
        raise FlagError("label_query", f"{query}: dataset {pictures.dataset} has classes, all of which are told apart")
    images = open_pictures(pictures, split=split, field=field)
    if images.class_names is None:
        raise FlagError(field, f"{folder}: dataset {images.name} has no classes; use one folder a class")
    return Labelled(images, images.class_names, labels_of(images).long())


def open_attributes(pictures: LabelledConfig, split: str, field: str, chosen: list[int] | None) -> Labelled:
    """One attribute if it is asked for, or those ``chosen``, or all of them."""
    spec, query = spec_of(pictures.dataset), pictures.label_query
    if spec.faces:
        found = open_faces(pictures, split, field)
    elif count := len(pictures.columns.labels if pictures.dataset == ATTRIBUTES else spec.heads):
        found = together([open_attribute(pictures, i, split, field) for i in range(count)])
    elif query == UNKNOWN:
        raise FlagError("label_query", f"-1: give the attribute of dataset {pictures.dataset} to decide")
    else:
        found = open_attribute(pictures, query, split, field)
    if query != UNKNOWN and len(found.names) > 1:
        chosen = [resolve_name(found.names, query, "label_query", "the data set")]
    if chosen is not None:
        found = Labelled(found.images, tuple(found.names[i] for i in chosen), found.labels[:, chosen])
    if (found.labels == found.labels[:1]).all():
        raise FlagError(field, f"{pictures.data_dir}: dataset {pictures.dataset} says the same of every picture")
    return found


def open_faces(pictures: LabelledConfig, split: str, field: str) -> Labelled:
    """CelebA's attributes, whose table is read once for all."""
    spec = spec_of(pictures.dataset)
    assert spec.faces is not None
    images = open_pictures(pictures, label_query=next(iter(spec.heads)), split=split, field=field)
    faces = spec.faces(existing(pictures.data_dir))
    values = dict(faces.rows)
    rows = np.array([[value == "1" for value in values[record.path.name]] for record in images.records])
    return Labelled(images, tuple(faces.attributes), torch.from_numpy(rows).float())


def open_attribute(pictures: LabelledConfig, query: int | str, split: str, field: str) -> Labelled:
    images = open_pictures(pictures, label_query=query, split=split, field=field)
    name = images.class_names[1] if images.class_names else str(query)  # of "not smiling", "smiling"
    return Labelled(images, (name,), labels_of(images)[:, None].float())


def together(opened: list[Labelled]) -> Labelled:
    """Attributes of the same pictures."""
    names, labels = tuple(name for one in opened for name in one.names), [one.labels for one in opened]
    return Labelled(opened[0].images, names, torch.cat(labels, 1))


def labels_of(images: ImageSet) -> Tensor:
    return torch.tensor([record.label for record in images.records])
