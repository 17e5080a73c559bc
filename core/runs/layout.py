"""The result folder: DiME's layout of pictures, and a record of each finished picture.

A picture is finished when ``records/NNNNNNN.json`` exists, which is written last: its other files are whole by then.
"""

import hashlib
import io
import re
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from PIL import Image

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.reading import read_bytes
from ace_counterfactuals.core.base.settings import FlagError, did_you_mean
from ace_counterfactuals.core.runs.described import CONFIG, read_raw, settings_digest, sha256
from ace_counterfactuals.core.runs.records import KINDS, Record, Skipped, read_record, sealed

OWN = re.compile(r"\d{7,}\.(json|png|txt|npy)")
TABLE = re.compile(r"(?:c-(\d+)_(\d+)-)?(summary\.yaml|results\.csv|sheet\.png)")
STATE = re.compile(r"attack-(\d{7,})\.safetensors")  # of the batch in hand that begins with this picture
CONTENTS = ("CF", "Noise", "Info", "SM")
REFINED = "all_filtered_"  # how the names of postprocessing's folders begin
FOLDERS = tuple(f"{correct}/{flipped}" for correct in ("CC", "IC") for flipped in ("CCF", "ICF"))


@dataclass(frozen=True)
class Pictures:
    """What is drawn for one picture. contents: by kind, then CF, Noise or SM.

    original: None leaves the stored one alone.  pre_explanation: its .npy file.  measured: that of the original and of
    the explanation, where these are measurements.
    """

    original: Image.Image | None
    contents: Mapping[str, Mapping[str, Image.Image]]
    pre_explanation: bytes | None = None
    measured: Mapping[str, bytes] = field(default_factory=dict)


def no_such_experiment(output: Path, exp_name: str) -> FlagError:
    """Says what there is instead, of main.py, postprocessing.py and the original program."""
    results = output / "Results"
    if not results.is_dir():
        return FlagError("output_path", f"{output}: no results there, wanted a folder Results in it")
    roots = {path.parent for depth in (1, 2, 3) for path in results.glob("*/" * depth + "[CI]C")}
    runs = {root.parent if root.name in KINDS else root for root in roots}
    there = sorted(run.relative_to(results).as_posix() for run in runs)
    hint = did_you_mean(exp_name, there, otherwise=f"there are: {', '.join(there) or 'none'}")
    return FlagError("exp_name", f"{exp_name}: no such experiment in {results}{hint}")


@dataclass(frozen=True)
class ResultFolder:
    """``Original`` and ``Results/EXP`` below an output folder."""

    output: Path
    exp_name: str

    def __post_init__(self):
        guard.give(self.output)

    @property
    def refined(self) -> bool:
        """Whether this is postprocessing's ``EXP/all_filtered_...``, where CC and IC lie without a folder of a kind."""
        return "/" in self.exp_name and Path(self.exp_name).name.startswith(REFINED)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the pictures that are stored here."""
        return KINDS[1:] if self.refined else KINDS

    @property
    def root(self) -> Path:
        return self.output / "Results" / self.exp_name

    @property
    def records_folder(self) -> Path:
        return self.root / "records"

    @property
    def log(self) -> Path:
        """What differs between two runs of one command: who ran when, how long it took, locks."""
        return self.root / "log"

    def create(self) -> None:
        """Make every folder of the layout, also those that stay empty."""
        for folder in self.folders():
            guard.make_folder(folder)

    def folders(self) -> list[Path]:
        """Every folder that files are written to."""
        originals = [self.output / "Original" / correct for correct in ("Correct", "Incorrect")]
        return [self.root, *self.leaves(), *originals, self.records_folder, self.log]

    def leaves(self) -> list[Path]:
        """The folders of Info files and pictures: 32, or 16 of refined ones."""
        return list({path.parent: None for path in self.places(0)})

    def own_files(self) -> Iterator[Path]:
        """Records first, then what belongs to them, Info files and pictures, also those that no record knows; then the
        states of attacks."""
        for folder in (self.records_folder, *self.leaves()):
            yield from (path for path in sorted(folder.glob("*")) if OWN.fullmatch(path.name))
        yield from self.states().values()

    def tables(self) -> list[Path]:
        """Those of the whole and of the chunks."""
        return [path for path in sorted(self.root.glob("*")) if TABLE.fullmatch(path.name)]

    def state(self, first: int) -> Path:
        """Where the attack of a batch stands is kept, by the batch's first picture."""
        return self.root / f"attack-{first:07d}.safetensors"

    def states(self) -> dict[int, Path]:
        """First picture -> file, of the batches that are in hand or were when a run ended."""
        found = map(STATE.fullmatch, sorted(path.name for path in self.root.glob("attack-*")))
        return {int(match[1]): self.root / match[0] for match in found if match}

    def path(self, kind: str, folder: str, content: str, index: int) -> Path:
        """Of an Info file or a picture.  folder: such as CC/CCF."""
        place = self.root if self.refined else self.root / kind
        return place / folder / content / f"{index:07d}.{'txt' if content == 'Info' else 'png'}"

    def floats(self, folder: str, index: int) -> Path:
        """Where ``--save_float`` keeps a pre-explanation."""
        return self.path("pre-explanation", folder, "CF", index).with_suffix(".npy")

    def measured(self, folder: str, index: int) -> Path:
        """Where an explanation is kept as it would be measured."""
        return self.path("explanation", folder, "CF", index).with_suffix(".npy")

    def numbers(self, record: Record) -> set[Path]:
        """The .npy files that a record may have."""
        found = {self.measured(record.folder("explanation"), record.index)}
        return found if self.refined else found | {self.floats(record.folder("pre-explanation"), record.index)}

    def files(self, record: Record) -> dict[tuple[str, str], Path]:
        """(kind, content) -> path of the record's Info files and, if they were saved, pictures, the original apart."""
        keys = product(self.kinds, CONTENTS if record.saved else ("Info",))
        return {(kind, content): self.path(kind, record.folder(kind), content, record.index) for kind, content in keys}

    def places(self, index: int) -> list[Path]:
        """Every path that a picture's files may have."""
        paths = [self.path(kind, folder, name, index) for kind in self.kinds for folder in FOLDERS for name in CONTENTS]
        paths += [self.measured(folder, index) for folder in FOLDERS]
        return paths if self.refined else [*paths, *(self.floats(folder, index) for folder in FOLDERS)]

    def record_paths(self) -> list[Path]:
        """Those of finished and skipped pictures, in order."""
        return [path for path in sorted(self.records_folder.glob("*.json")) if OWN.fullmatch(path.name)]

    def record(self, index: int) -> Path:
        return self.records_folder / f"{index:07d}.json"

    def original(self, index: int, correct: bool) -> Path:
        return self.output / "Original" / ("Correct" if correct else "Incorrect") / f"{index:07d}.png"

    def originals(self, index: int, correct: bool = True) -> list[Path]:
        """Where an original may be, since another classifier moves it: first where it is, else as judged."""
        paths = [self.original(index, correct), self.original(index, not correct)]
        return sorted(paths, key=lambda path: not path.exists())

    def write(self, record: Record, pictures: Pictures | None) -> None:
        """Write a picture's files, its record last; pictures: None keeps the Info files and the record alone.

        What an earlier attempt left is removed, its record first: at every instant a record has its own files.
        """
        guard.refuse_links([self.record(record.index)])
        record = replace(record, saved=pictures is not None)
        drawn = self.files(record)
        files = {drawn.pop((kind, "Info")): record.info(kind).encode() for kind in self.kinds}
        files |= atomic.pngs({path: pictures.contents[kind][content] for (kind, content), path in drawn.items()})
        if pictures and pictures.pre_explanation:
            files[self.floats(record.folder("pre-explanation"), record.index)] = pictures.pre_explanation
        if pictures and "explanation" in pictures.measured:
            files[self.measured(record.folder("explanation"), record.index)] = pictures.measured["explanation"]
        if pictures and pictures.original:
            files |= self.new_original(record, pictures.original, pictures.measured.get("original"))
        commit, record = self.record(record.index), self.with_digests(record, files)
        self.forget(record.index, but=files)
        with atomic.prepared({**files, commit: record.to_bytes()}) as temporary:
            atomic.rename(temporary, files)
            if pictures and pictures.original:
                self.settle_original(record)
            atomic.rename(temporary, [commit])

    def new_original(self, record: Record, picture: Image.Image, measured: bytes | None = None) -> dict[Path, bytes]:
        """What to store of the original, which all experiments of an output folder share; nothing if it is there.

        measured: its .npy file.
        Raises FlagError for another picture: the experiments must explain the same ones.
        """
        stored = self.originals(record.index, not record.correct)
        known = {path: pixels for path in stored if (pixels := pixels_of(path, picture.height))}
        for path, pixels in known.items():
            if pixels != fingerprint(picture):
                other = f"{path.relative_to(self.output)} is another picture than {record.file}"
                need = "experiments on other data or of another size need another output folder"
                raise FlagError("output_path", f"{self.output}: {other}; {need}")
        place = stored[0] if stored[0].exists() else self.original(record.index, record.correct)
        files = {} if place in known else {place: atomic.png(picture)}
        return files | ({place.with_suffix(".npy"): measured} if measured else {})

    def settle_original(self, record: Record) -> None:
        """Put the original where the record's classifier has it; of experiments that disagree the last one decides.

        Nothing is deleted, so that one that is moved at the same time is there at every instant.
        """
        for suffix in (".png", ".npy"):
            if (elsewhere := self.original(record.index, not record.correct).with_suffix(suffix)).exists():
                with suppress(FileNotFoundError):
                    guard.move(elsewhere, self.original(record.index, record.correct).with_suffix(suffix))

    def lack_original(self, finished: Mapping[int, Record]) -> set[int]:
        """The finished pictures of which an original was stored, and is gone."""
        there = {path.name for side in (True, False) for path in self.original(0, side).parent.glob("*.png")}
        return {i for i, record in finished.items() if record.saved and self.original(i, True).name not in there}

    def forget(self, index: int, but: Container[Path] = ()) -> None:
        """Let a picture count as unfinished, for good, and remove its files, ``but`` those that are written next."""
        if (record := self.record(index)).exists():
            guard.remove([record])
            atomic.sync_folder(self.records_folder)
        guard.remove(path for path in self.places(index) if path not in but)

    def write_skipped(self, index: int, file: str, reason: str) -> None:
        """Remember a picture that cannot be read; the next run tries it again."""
        self.forget(index)
        atomic.write_bytes(self.record(index), sealed({"index": index, "file": file, "skipped": reason}))

    def with_digests(self, record: Record, files: Mapping[Path, bytes]) -> Record:
        """The record of the ``files``; the original apart, of which it tells the pixels."""
        own = {path.relative_to(self.root): data for path, data in files.items() if path.is_relative_to(self.root)}
        settings = settings_digest(read_raw(self.root / CONFIG)) if (self.root / CONFIG).exists() else ""
        return replace(record, files={path.as_posix(): sha256(data) for path, data in own.items()}, settings=settings)

    def read(self) -> tuple[dict[int, Record], dict[int, Skipped]]:
        """index -> record of the finished pictures, and of the skipped ones, both in order.

        A record that cannot be read does not count, with a notice.
        """
        finished, skipped = {}, {}
        for path in self.record_paths():
            try:
                record = read_record(path)
            except ValueError as error:
                notice(f"{error}; its picture counts as unfinished")
                continue
            if isinstance(record, Record):
                finished[record.index] = record
            else:
                skipped[record.index] = record
        return finished, skipped

    def read_whole(self) -> tuple[dict[int, Record], dict[int, Skipped]]:
        """The same without the finished pictures of which an Info file or a picture is gone, with a notice."""
        there = {path for folder in self.leaves() if folder.is_dir() for path in folder.iterdir()}
        finished, skipped = self.read()
        whole = {index: record for index, record in finished.items() if there.issuperset(self.files(record).values())}
        if len(whole) < len(finished):
            gone = f"files of {len(finished) - len(whole)} finished pictures are gone"
            notice(f"{self.root}: {gone}; these count as unfinished")
        return whole, skipped

    def pictures_of(self, record: Record) -> dict[str, Path] | None:
        """The pictures to show of a finished one; None where they were not saved."""
        masked, run, folders = self.kinds[0], self, [record.folder("pre-explanation")]
        if self.refined:  # the run may have judged the pre-explanation otherwise
            run, folders = ResultFolder(self.output, str(Path(self.exp_name).parent)), FOLDERS
        attacked = (run.path("pre-explanation", folder, "CF", record.index) for folder in folders)
        shown = {
            "original": self.originals(record.index)[0],
            "pre-explanation": max(attacked, key=Path.exists),
            "mask": self.path(masked, record.folder(masked), "SM", record.index),
            "explanation": self.path("explanation", record.folder("explanation"), "CF", record.index),
        }
        return shown if all(map(Path.exists, shown.values())) else None


def fingerprint(picture: Image.Image) -> str:
    """Of size and pixels, however they are stored."""
    levels = hashlib.blake2b(picture.tobytes(), digest_size=16)
    levels.update(f"{picture.mode} {picture.size}".encode())
    return levels.hexdigest()


def most_bytes(side: int) -> int:
    """Of a stored file of a picture with so many rows: float32, twice as wide as high."""
    return min(24 * side * side + 2**16, 2**27)


def decoded(path: Path, side: int) -> Image.Image:
    """A stored picture of ``side`` rows, as wide or twice as wide.

    Raises ValueError if it is not there, of another size, or not whole to the last byte.
    """
    try:
        data = read_bytes(path, most_bytes(side))
        check_png(data)
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.height != side or picture.width not in (side, 2 * side):
            raise ValueError(f"{picture.width} x {picture.height} pixels, where the experiment has {side} rows")
        picture.load()
        return picture
    except FileNotFoundError:
        raise ValueError(f"{path}: is missing") from None
    except Exception as error:  # a plug-in of Pillow lets through whatever its parser stumbles on
        said = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise ValueError(f"{path}: cannot be decoded ({said})") from None


def check_png(data: bytes) -> None:
    """Raises ValueError where a byte is not as the checksums say: decoding does not look at all of them."""
    kind, end = b"", 8
    while kind != b"IEND":
        start, end = end + 4, end + 12 + int.from_bytes(data[end : end + 4], "big")
        kind = data[start : start + 4]
        if end > len(data) or zlib.crc32(data[start : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("it is cut short or damaged")
    if end != len(data) or not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("it is no PNG, or more than one")


def pixels_of(path: Path, side: int) -> str | None:
    """The fingerprint of a stored picture; None if it is not there, of another size, or not whole."""
    with suppress(ValueError):
        return fingerprint(decoded(path, side))
    return None
