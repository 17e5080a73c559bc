"""Settings of what is explained: data set, labels, region."""

import os
from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import (
    FlagError,
    bounds,
    channels,
    colour,
    flag,
    interval,
    label,
    names_a_file,
)
from ace_counterfactuals.core.data.annotations import Columns
from ace_counterfactuals.core.data.datasets import ATTRIBUTES, DATASETS, spec_of


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Which pictures a program reads."""

    dataset: str = flag("ImageNet", "data set", choices=DATASETS)
    data_dir: str = flag("", "folder of the data set", path=True, result=False)
    image_size: int = flag(256, "side of the pictures in pixels; BDD pictures are twice as wide", low=8, told=True)
    image_channels: int | str = flag(
        "auto",
        "1: the pictures are grey and stay so; 3: they are in colour; auto: grey if all are, but for the paper's sets",
        kind=channels,
    )
    background: str = flag("white", "what transparent pictures are laid on: a colour's name, or #rrggbb", kind=colour)
    image_range: str = flag(
        "",
        "LOW,HIGH: pictures are measurements (.npy, TIFF and PNG of any depth), of which LOW becomes 0 and HIGH 1; "
        "results are kept as .npy in their units, too",
        kind=interval,
    )
    csv_file: str = flag("labels.csv", "CSV: the table, in DATA_DIR")
    csv_image: str = flag(
        "file", "CSV: its column of file names; HuggingFace: that of pictures, the first if not given"
    )
    csv_label: str = flag(
        "label",
        "CSV, HuggingFace: its column of classes, by number or name; '' is none. Of a CSV several, with commas between "
        "them, are attributes of which label_query names one, and so is one that label_query names",
    )
    csv_split: str = flag("", "CSV: COLUMN=VALUE takes the rows with this value alone; HuggingFace: split=NAME")

    def __post_init__(self) -> None:
        query = getattr(self, "label_query", "")
        if self.dataset == "CSV" and (len(self.columns.labels) > 1 or query in self.columns.labels):
            object.__setattr__(self, "dataset", ATTRIBUTES)
        if files := getattr(self, "image", None):
            folder = os.path.commonpath([os.path.dirname(os.path.abspath(os.path.expanduser(file))) for file in files])
            object.__setattr__(self, "data_dir", folder)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return spec_of(self.dataset).shape(self.image_size)

    @property
    def span(self) -> tuple[float, float] | None:
        """LOW and HIGH of ``image_range``."""
        return bounds(self.image_range)

    @property
    def columns(self) -> Columns:
        """Of the table.  Raises FlagError."""
        labels = tuple(filter(None, map(str.strip, self.csv_label.split(","))))
        column, equals, value = map(str.strip, self.csv_split.partition("="))
        if self.csv_split and not (column and equals):
            raise FlagError("csv_split", f"{self.csv_split}: wanted COLUMN=VALUE, such as part=train")
        split = (column, value) if equals else None
        return Columns(file=self.csv_file, image=self.csv_image, labels=labels, split=split)


@dataclass(frozen=True, kw_only=True)
class DataConfig(PicturesConfig):
    """Which of them are explained, and towards what."""

    image: tuple = flag(
        (),
        "files to explain, in place of a data set's; what the classifier predicts counts as their label",
        kind=str,
        path=True,
        many=True,
        result=False,
    )
    label_query: int | str = flag(
        -1,
        "attribute that the classifier decides (binary sets), or class to start from: only pictures of that label, "
        "or, where none has a label, of that prediction, are explained",
        kind=label,
    )
    label_target: int | str = flag(
        -1,
        "label to reach; only pictures of the other label, or of class label_query, are explained. "
        "-1 flips the prediction (binary) or leaves it to any other class",
        kind=label,
    )
    num_samples: int = flag(
        500000000000, "pictures to explain at most, after the selection by label", low=1, result=False
    )


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """Where they may change."""

    region: str = flag(
        "",
        "x0,y0,x1,y1 in pixels, a picture that is white where it may change, or a folder of such by file name; "
        "'' is everywhere",
        path=names_a_file,
    )
    region_invert: bool = flag(False, "what is outside the region may change, instead of what is inside")
