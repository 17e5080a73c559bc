"""A data set as records plus a transform: slicing and selecting move records and decode nothing."""

import difflib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from PIL import Image
from torch import Tensor

from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, to_tensor

UNKNOWN = -1  # the label of a picture that has none; as a flag: not given
MAX_LISTED = 40


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture that is not decoded yet. ``index``: its place in the whole data set, which names its results."""

    index: int
    path: Path
    label: int


@dataclass(frozen=True, eq=False)
class Sample:
    """A decoded picture; ``image`` is (3, H, W) float32 in [0, 1]."""

    index: int
    path: Path
    label: int
    image: Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Map-style data set.  ``images[i]`` decodes one Sample; ``images[a:b]`` is a smaller ImageSet.

    query: the attribute that a binary data set was opened for, UNKNOWN for the others.
    aliases: further names of labels, such as WordNet ids.
    notices: what the user should know about how the set was read.
    """

    name: str
    binary: bool
    records: Sequence[Entry]
    transform: Callable[[Image.Image], Image.Image]
    class_names: tuple[str, ...] | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    query: int = UNKNOWN
    upright: bool = False
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int | slice) -> "Sample | ImageSet":
        if isinstance(position, slice):
            return replace(self, records=self.records[position])
        record = self.records[position]
        try:
            image = self.transform(decode(record.path, upright=self.upright))
        except ValueError as error:
            reason = error.reason if isinstance(error, UnreadableImage) else str(error)
            raise UnreadableImage(record.path, reason, record.index) from None
        return Sample(record.index, record.path, record.label, to_tensor(image))


class EmptySelection(ValueError):
    """No picture is left; ``rule`` is the flag whose rule removed the last ones."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


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
        raise ValueError(f"--num_samples {num_samples}: choose at least 1")
    if not 0 <= chunk < chunks:
        raise ValueError(f"--chunk {chunk}: wanted 0 to {chunks - 1}, since --chunks is {chunks}")
    kept = _with_label(images, label_target, label_query)[:num_samples]
    share = [r for r in kept if r.index % chunks == chunk]
    if not share:
        raise EmptySelection(
            f"--chunk {chunk} of --chunks {chunks} is empty: none of the {len(kept)} selected pictures "
            f"of --dataset {images.name} has an index that gives {chunk} modulo {chunks}; choose fewer chunks",
            "chunk",
        )
    return replace(images, records=share)


def _with_label(images: ImageSet, target: int | str, query: int | str) -> Sequence[Entry]:
    target = resolve_label(images, target, "--label_target")
    if target == UNKNOWN:
        return images.records
    wanted = 1 - target if images.binary else resolve_label(images, query, "--label_query")
    kept = [r for r in images.records if r.label == wanted]
    if kept:
        return kept
    counts = sorted(Counter(r.label for r in images.records).items())
    there = shorten([f"{n} x {_describe(images, label)}" for label, n in counts])
    if images.binary:
        rule = f"--label_target {target} keeps pictures of label {_describe(images, wanted)}"
    else:
        rule = f"--label_target {target} keeps pictures of class --label_query {_describe(images, wanted)}"
        rule += ", which is not given" if wanted == UNKNOWN else ""
    raise EmptySelection(
        f"no picture left of the {len(images)} of --dataset {images.name}: {rule}; there are: {there}",
        "label",
    )


def resolve_label(images: ImageSet, text: int | str, flag: str) -> int:
    """The label that ``text``, an index or a name, means; -1 is "not given". A name goes before an equal index."""
    names = ("0", "1") if images.binary and not images.class_names else images.class_names
    return resolve_name(names, text, flag, f"--dataset {images.name}", images.aliases)


def resolve_name(
    names: Mapping[int, str] | Sequence[str] | None,
    text: int | str,
    flag: str,
    owner: str,
    aliases: Mapping[str, int] | None = None,
) -> int:
    """The index of ``text`` among ``names``, or ``text`` itself where it is an index there; -1 stays -1.

    names: by position, or index -> name.  None: nothing is known of the classes, so any index is taken, but no name.
    """
    known = names if isinstance(names, Mapping) else dict(enumerate(names or ()))
    by_name = {**(aliases or {}), **{name: label for label, name in known.items()}}
    if text in by_name:
        return by_name[text]
    try:
        label = int(text)
    except ValueError:
        label = None
    if label is not None and (label == UNKNOWN or (label >= 0 and names is None)):
        return label
    if names is None:
        raise ValueError(f"{flag} {text}: {owner} has no named classes; give an index, 0 or more")
    if label in known:
        return label
    valid = shorten([f"{i} {name}" for i, name in known.items()])
    raise ValueError(
        f"{flag} {text}: no label of {owner}; {did_you_mean(str(text), by_name)}choose an index or a name: {valid}"
    )


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """A suggestion for a message, or '' where nothing comes close."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(text.lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]}? " if close else ""


def _describe(images: ImageSet, label: int) -> str:
    if label == UNKNOWN:
        return "-1 (unknown)"
    names = images.class_names
    return f"{label} {names[label]}" if names and label < len(names) else str(label)


def shorten(items: Sequence[str]) -> str:
    """The items in one line, a long list with its middle left out."""
    if len(items) <= MAX_LISTED:
        return ", ".join(items)
    head, tail = items[: MAX_LISTED - 2], items[-2:]
    return ", ".join([*head, f"... ({len(items) - MAX_LISTED} more)", *tail])


def prefetch(images: ImageSet, positions: Iterable[int], workers: int) -> Iterator[Sample | UnreadableImage]:
    """The samples at ``positions``, in order, decoded ahead by ``workers`` threads while the caller works.

    An unreadable picture is yielded as its UnreadableImage.  Never more than 2 * workers + 1 pictures are held;
    workers 0 decodes in line.
    """
    if workers < 0:
        raise ValueError(f"--num_workers {workers}: choose 0 or more")
    return _ahead(images, iter(positions), workers) if workers else (_attempt(images, p) for p in positions)


def _ahead(images: ImageSet, positions: Iterator[int], workers: int) -> Iterator[Sample | UnreadableImage]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        pending = deque(pool.submit(_attempt, images, p) for p in islice(positions, 2 * workers))
        while pending:
            sample = pending.popleft().result()
            pending.extend(pool.submit(_attempt, images, p) for p in islice(positions, 1))
            yield sample
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(images: ImageSet, position: int) -> Sample | UnreadableImage:
    try:
        return images[position]
    except UnreadableImage as error:
        return error
