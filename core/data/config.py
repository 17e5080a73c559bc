"""Settings of what is explained: data set, labels, region."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import channels, flag, label, names_a_file
from ace_counterfactuals.core.data.datasets import DATASETS


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Which pictures a program reads."""

    dataset: str = flag("ImageNet", "data set", choices=DATASETS)
    data_dir: str = flag("", "folder of the data set", path=True, result=False)
    image_size: int = flag(256, "side of the pictures in pixels; BDD pictures are twice as wide", low=8)
    image_channels: int | str = flag(
        "auto",
        "1: the pictures are grey and stay so; 3: they are in colour; auto: grey if all are, of Folder and CSV alone",
        kind=channels,
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig(PicturesConfig):
    """Which of them are explained, and towards what."""

    label_query: int | str = flag(
        -1, "attribute that the classifier decides (binary sets), or class to start from", kind=label
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
