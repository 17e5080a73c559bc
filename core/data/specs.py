"""What is said of a data set in the table of data sets. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.data.annotations import Faces

UNKNOWN = -1  # the label of a picture that has none; as a setting: not given


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture that is not decoded yet. ``index``: its place in the whole data set, which names its results."""

    index: int
    path: Path
    label: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Listing:
    """The pictures of a data set, in its order, and what their labels are called.

    aliases: further names of labels, such as WordNet ids.  query: the attribute that labels a binary set.
    notices: what the user should know about how the folder was read.
    content: gives the bytes of a picture by its path, where it is no file of its own.
    """

    records: Sequence[PictureFile]
    class_names: tuple[str, ...] | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    query: int = UNKNOWN
    notices: tuple[str, ...] = ()
    content: Callable[[Path], bytes] | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """All that is known of a data set.

    read: (folder, label_query, whether to train) -> Listing; ValueError where the folder is not laid out as wanted.
    settled: it takes the ``PicturesConfig``, too.
    binary: its classifier answers yes or no to the attribute ``label_query``, by one logit.
    wide: pictures are (H, 2H), resized whole; others are square, cut from the middle.
    mirrored: whether training may mirror them.  upright: they are turned as their EXIF orientation says.
    any_channels: they may be grey; others are in colour.
    faces: reads CelebA's 40 attributes, which condition its diffusion models and which CD correlates.
    oracle: whose attribute oracle knows them, "CelebA" or "CelebA-HQ".
    heads: attribute -> output of the published classifier, a DenseNet-121; others have none.
    arch: torchvision's name of the published classifier, of ``num_classes``; fetched where no file is given.
    """

    read: Callable[..., Listing]
    settled: bool = False
    binary: bool = False
    wide: bool = False
    mirrored: bool = True
    upright: bool = False
    any_channels: bool = False
    faces: Callable[[Path], Faces] | None = None
    oracle: str = ""
    heads: Mapping[int, int] = field(default_factory=dict)
    arch: str = ""
    num_classes: int | None = None

    def classifier(self, arch: Any = "") -> dict[str, Any]:
        """What ``load_classifier`` is asked for; ``arch``: its, of a classifier other than the published one."""
        own = {"binary": self.binary, "heads": self.heads, "num_classes": self.num_classes}
        return own | {"arch": arch or self.arch}

    def shape(self, image_size: int) -> tuple[int, int]:
        """Height and width of its pictures."""
        return image_size, 2 * image_size if self.wide else image_size
