"""A data set as records and a transform: selecting moves records and decodes nothing."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.data.config import DataConfig, PicturesConfig
from ace_counterfactuals.core.data.datasets import imagenet_classes, spec_of
from ace_counterfactuals.core.data.folders import existing, first
from ace_counterfactuals.core.data.labels import MAX_LISTED, resolve_name
from ace_counterfactuals.core.data.measured import Span, measured, tensor_of
from ace_counterfactuals.core.data.pictures import (
    SAID,
    UnreadableImage,
    decode,
    is_grey,
    resize_crop,
    resize_wide,
    to_tensor,
)
from ace_counterfactuals.core.data.specs import UNKNOWN, Listing, PictureFile

LOOKED = 32  # pictures in colour, with no grey one among them, tell that a set is not grey


@dataclass(frozen=True, eq=False)
class Sample(PictureFile):
    """A picture that is decoded; ``image`` is (C, H, W) float32 in [0, 1], C 3 or, of a grey set, 1."""

    image: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet(Listing):
    """``images[i]`` decodes one picture, or raises UnreadableImage.  channels: 1 if all are grey, else 3.

    background: what transparent pictures are laid on.  span: LOW and HIGH of measurements.  predicted: by index, what
    counts as the label of a picture where none has one.  told: what the user knows already.
    """

    name: str
    binary: bool = False
    transform: Callable[[Image.Image], Image.Image]
    upright: bool = False
    channels: int = 3
    background: str = "white"
    span: Span | None = None
    predicted: Mapping[int, int] = field(default_factory=dict)
    told: dict[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def layers(self, path: Path) -> list[Image.Image]:
        """A file decoded: one picture in RGB or, of measurements, an image of numbers a channel."""
        how: dict[str, Any] = {"upright": self.upright, "background": self.background, "content": self.content}
        layers = [decode(path, **how)] if self.span is None else measured(path, self.span, **how)
        said, mark = layers[0].info.get(SAID), object()
        if said and self.told.setdefault(said, mark) is mark:  # whichever thread is first
            notice(f"{said}, such as {path}")
        return layers

    def picture(self, path: Path) -> Tensor:
        """(C, H, W), resized.  Raises ValueError."""
        layers = self.layers(path)
        if self.channels == 1 and not all_grey(layers):
            raise ValueError("is in colour, but image_channels is 1: the pictures of this set are grey")
        resized = [self.transform(layer) for layer in layers]
        image = to_tensor(resized[0]) if self.span is None else tensor_of(resized)
        return image[: self.channels] if len(image) >= self.channels else image.expand(self.channels, -1, -1)

    def __getitem__(self, position: int) -> Sample:
        record = self.records[position]
        try:
            image = self.picture(record.path)
        except ValueError as error:
            raise UnreadableImage(record.path, getattr(error, "reason", str(error)), record.index) from None
        return Sample(record.index, record.path, record.label, image)


def open_dataset(
    name: str,
    data_dir: str | Path,
    *,
    label_query: int | str = UNKNOWN,
    split: str = "explain",
    field: str = "data_dir",
    **settings: Any,
) -> ImageSet:
    """Every picture of the split, in the set's order: its annotations are read, no picture is opened.

    label_query: the attribute that labels a binary set, by index or name; the other sets do not look at it.
    split: "explain", or "train" for the partition that models are trained on, where the query may be left out.
    field: the setting that names the folder.  settings: further fields of ``PicturesConfig``, such as image_size.
    Raises FlagError.
    """
    pictures = PicturesConfig(dataset=name, data_dir=str(data_dir), **settings)
    return open_pictures(pictures, label_query=label_query, split=split, field=field)


def open_pictures(
    pictures: PicturesConfig,
    *,
    label_query: int | str = UNKNOWN,
    split: str = "explain",
    field: str = "data_dir",
) -> ImageSet:
    """The same of the settings; ``image_channels`` is left to ``with_channels``."""
    assert split in ("explain", "train"), split
    name, spec = pictures.dataset, spec_of(pictures.dataset)
    further = (pictures,) if spec.settled else ()
    try:
        folder = existing(pictures.data_dir)
        listing = without_odd_names(spec.read(folder, label_query, split == "train", *further), folder)
    except FlagError:
        raise
    except ValueError as error:
        raise FlagError(field, f"{error}; the data set is {name}") from None
    return image_set(pictures, listing)


def open_files(data: DataConfig) -> ImageSet:
    """The pictures of ``image``, without labels; the data set tells what is explained of them alone.

    Raises FlagError for what is no picture, or an attribute by name.
    """
    records = [PictureFile(i, Path(file).expanduser().absolute(), UNKNOWN) for i, file in enumerate(data.image)]
    spec, query = spec_of(data.dataset), UNKNOWN
    if spec.binary:
        query = resolve_name(dict.fromkeys(spec.heads, "") or None, data.label_query, "label_query", "image")
        if query == UNKNOWN:
            raise FlagError("label_query", "-1: with image, give the number of the attribute")
    names = imagenet_classes()[1] if spec.arch else None
    images = image_set(data, Listing(records=records, class_names=names, query=query))
    with blaming("image"):
        for record in records:
            if record.path.is_dir():
                raise ValueError(f"{record.path}: is a folder; give it as data_dir, with dataset Folder")
            images.layers(record.path)
    return images


def image_set(pictures: PicturesConfig, listing: Listing) -> ImageSet:
    """The pictures that are listed, as the settings say that they are read."""
    spec = spec_of(pictures.dataset)
    transform = partial(resize_wide if spec.wide else resize_crop, size=pictures.image_size)
    return ImageSet(
        name=pictures.dataset,
        binary=spec.binary,
        transform=transform,
        upright=spec.upright,
        background=pictures.background,
        span=pictures.span,
        **vars(listing),
    )


def without_odd_names(listing: Listing, folder: Path) -> Listing:
    """Without the pictures whose names no table could hold, since they are not UTF-8.  Raises ValueError for folders.

    A picture's index counts them, too: renaming them later changes no other name.
    """
    for name in (str(folder), *(listing.class_names or ())):
        if in_bytes(name) != name:
            raise ValueError(f"{in_bytes(name)}: the name of this folder is not UTF-8; rename it")
    odd = {record.index: in_bytes(name) for record in listing.records if in_bytes(name := str(record.path)) != name}
    if not odd:
        return listing
    said = f"{len(odd)} pictures whose names are not UTF-8 are skipped: {first(odd.values())}; rename them"
    kept = [record for record in listing.records if record.index not in odd]
    if not kept:
        raise ValueError(f"no picture is left: {said}")
    return replace(listing, records=kept, notices=(*listing.notices, said))


def in_bytes(name: str) -> str:
    r"""A file's name, in which \xNN stands for a byte that is not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def all_grey(layers: Sequence[Image.Image]) -> bool:
    """Of one picture."""
    return len(layers) == 1 and (layers[0].mode == "F" or is_grey(layers[0]))


def with_channels(images: ImageSet, channels: int | str) -> ImageSet:
    """As ``--image_channels`` says; auto looks at the pictures until one is in colour."""
    if channels != "auto":
        return replace(images, channels=int(channels))
    if not spec_of(images.name).any_channels:
        return images
    grey = colour = 0
    for record in images.records:
        with suppress(ValueError):
            decoded = all_grey(images.layers(record.path))
            grey, colour = grey + decoded, colour + (not decoded)
        if colour and (grey or colour == LOOKED):
            break
    if grey and colour:
        notice(f"some pictures of dataset {images.name} are grey and some in colour: all are taken as in colour")
    return images if colour or not grey else replace(images, channels=1)


class EmptySelection(FlagError):
    """No picture is left; ``field`` is the setting that removed the last ones."""


def select(
    images: ImageSet,
    *,
    label_target: int | str = UNKNOWN,
    label_query: int | str = UNKNOWN,
    num_samples: int = 10**12,
    chunk: int = 0,
    chunks: int = 1,
) -> ImageSet:
    """The pictures to explain: by label, then the first ``num_samples``, then this chunk's share of these."""
    if num_samples < 1:
        raise FlagError("num_samples", f"{num_samples}: wanted at least 1")
    if not 0 <= chunk < chunks:
        raise FlagError("chunk", f"{chunk}: wanted 0 to {chunks - 1}, since chunks is {chunks}")
    kept = _with_label(images, label_target, label_query)[:num_samples]
    share = [r for r in kept if r.index % chunks == chunk]
    if not share:
        said = f"{chunk} of {chunks} is empty: none of the {len(kept)} selected pictures of dataset {images.name}"
        raise EmptySelection("chunk", f"{said} has an index that gives {chunk} modulo {chunks}; choose fewer chunks")
    return replace(images, records=share)


def wanted_label(images: ImageSet, target: int | str, query: int | str) -> int:
    """The label of the pictures to explain, -1 where they are not selected by it, or only those without one are."""
    target = resolve_label(images, target, "label_target")
    if images.binary:
        return UNKNOWN if target == UNKNOWN else 1 - target
    return resolve_label(images, query, "label_query")


def _with_label(images: ImageSet, target: int | str, query: int | str) -> Sequence[PictureFile]:
    target, wanted = resolve_label(images, target, "label_target"), wanted_label(images, target, query)
    if target == wanted == UNKNOWN:
        return images.records
    labels = [images.predicted.get(record.index, record.label) for record in images.records]
    kept = [record for record, label in zip(images.records, labels, strict=True) if label == wanted]
    if kept:
        return kept
    names = {UNKNOWN: "(unknown)", **dict(enumerate(images.class_names or ()))}
    counts = sorted(Counter(labels).items())
    there = first((f"{count} x {label} {names.get(label, '')}".strip() for label, count in counts), MAX_LISTED)
    of = "label" if images.binary else "class label_query"
    hint = "" if images.binary or wanted != UNKNOWN else ", which is not given"
    field, value = ("label_query", wanted) if target == UNKNOWN else ("label_target", target)
    raise EmptySelection(
        field,
        f"{value} keeps pictures of {of} {wanted} {names.get(wanted, '')}{hint}: "
        f"none of the {len(images)} of dataset {images.name}; there are: {there}",
    )


def resolve_label(images: ImageSet, text: int | str, field: str) -> int:
    """The label of ``images`` that ``text``, the setting ``field``, means; -1 is "not given"."""
    names = ("0", "1") if images.binary and not images.class_names else images.class_names
    return resolve_name(names, text, field, f"dataset {images.name}", images.aliases)


def prefetch(
    images: ImageSet, positions: Iterable[int], workers: int, *, ahead: int = 0
) -> Iterator[Sample | UnreadableImage]:
    """The samples at ``positions``, in order, decoded ahead by ``workers`` threads while the caller works.

    An unreadable picture is yielded as its UnreadableImage.  Never more than 2 * workers pictures, or ``ahead`` if that
    is more, and one are held; workers 0 decodes in line.
    """

    def attempt(position: int) -> Sample | UnreadableImage:
        try:
            return images[position]
        except UnreadableImage as error:
            return error

    if not workers:
        yield from map(attempt, positions)
        return
    positions, pool = iter(positions), ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        pending = deque(pool.submit(attempt, p) for p in islice(positions, max(2 * workers, ahead)))
        while pending:
            sample = pending.popleft().result()
            pending.extend(pool.submit(attempt, p) for p in islice(positions, 1))
            yield sample
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def readable(images: ImageSet) -> Iterator[Sample]:
    """The pictures one by one, but for those that cannot be read; each is decoded when it is asked for."""
    return (sample for sample in prefetch(images, range(len(images)), 0) if isinstance(sample, Sample))
