"""What was found for one picture: what is said of it, what of it is needed, and its folder, to be kept elsewhere."""

import io
import shlex
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.reading import read_bytes
from ace_counterfactuals.core.base.settings import flag_items, from_dict, to_dict
from ace_counterfactuals.core.data.pictures import decode, to_tensor
from ace_counterfactuals.core.method.objectives import predict, probabilities
from ace_counterfactuals.core.method.undoing import changed_regions, undone
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import CONFIG, read_raw, sealed
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.records import WEAK, Record
from ace_counterfactuals.core.runs.tables import summarise

Judge = Callable[[Tensor], Tensor]
"""(N, C, H, W) in [0, 1] -> logits, (N,) or (N, K)"""
COMMAND = "command.txt"


@dataclass(frozen=True)
class Result:
    """In a temporary folder: picture.png and perhaps region.png, and main.py's folders.  pictures: what is shown.

    config: with which the same command line makes the same.  judged: by unseen classifier, its prediction before and
    after and the probability of what was wanted before and after.
    """

    temporary: TemporaryDirectory
    config: MainConfig
    results: ResultFolder
    record: Record
    pictures: Mapping[str, Path]
    judged: Mapping[str, dict[str, Any]]
    seconds: float

    @staticmethod
    def of(
        temporary: TemporaryDirectory,
        config: MainConfig,
        results: ResultFolder,
        unseen: Mapping[str, Judge],
        seconds: float,
    ) -> "Result":
        """What a run left.  Raises ValueError where that is nothing."""
        record = next(iter(results.read()[0].values()), None)
        pictures = record and results.pictures_of(record)
        if not record or not pictures:
            raise ValueError("nothing to explain: the classifier sees the target in this picture already")
        pictures["mask"] = results.path("explanation", record.folder("explanation"), "SM", record.index)
        judged = {name: judgement(ask, record, pictures) for name, ask in unseen.items()}
        return Result(temporary, config, results, record, pictures, judged, seconds)

    @property
    def warnings(self) -> list[str]:
        """What to know before the result is believed."""
        outcome, found = self.record.outcomes["explanation"], []
        if not outcome.success:
            found.append("The classifier does not change its mind: this is no counterfactual.")
        elif outcome.weak:
            found.append(f"A weak flip: the classifier is less than {WEAK:.0%} sure, and almost as soon would not.")
        if outcome.success and self.judged and not any(one["convinced"] for one in self.judged.values()):
            others = f"It convinces none of {len(self.judged)} classifiers that were not attacked"
            found.append(f"{others}: what changed may mean something to this classifier alone.")
        return found

    def told(self) -> dict[str, Any]:
        """For the page."""
        record, outcome = self.record, self.record.outcomes["explanation"]
        return {
            "prediction": record.prediction,
            "target": record.target,
            "before": record.source_prob,
            "likeliest": [record.top5, outcome.top5],
            "cf_prediction": outcome.prediction,
            "after": outcome.prob,
            "success": outcome.success,
            "l1": outcome.l1,
            "mask_area": record.mask_area,
            "iterations": record.iterations or self.config.attack.attack_iterations,
            "seconds": round(self.seconds, 1),
            "seed": self.config.run.seed,
            "unseen": self.judged,
            "warnings": self.warnings,
            "command": command(placed(self.config, Path("."))),
        }

    def undo(self, classifier: Judge, device: torch.device) -> list[dict[str, Any]]:
        """Each changed region, as left, top, width and height in shares of the picture, and what the classifier says of
        the picture once that region alone is put back."""
        image, changed = (shown(self.pictures[kind]).to(device) for kind in ("original", "explanation"))
        regions = changed_regions(image, changed, least=self.config.sampling.sampling_inpaint)
        if not len(regions):
            return []
        with torch.no_grad():
            logits = classifier(undone(image, changed, regions))
        found = []
        for region, one, label in zip(regions, probabilities(logits), predict(logits).tolist(), strict=True):
            wanted, needed = wanted_share(one, self.record), not reaches(label, self.record)
            found.append({"box": box_of(region[0]), "prediction": label, "wanted": wanted, "needed": needed})
        return found

    def content(self, place: Path) -> dict[str, bytes]:
        """Path below ``place`` -> what is there if the result lies in it: config.yaml, summary and command name it."""
        root, inner = Path(self.temporary.name), self.results.root.relative_to(self.results.output)
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and self.results.log not in path.parents]
        found = {path.relative_to(root).as_posix(): read_bytes(path) for path in files}
        config = placed(self.config, place)
        described = read_raw(root / inner / CONFIG)
        flags = described["flags"] | {"data_dir": str(place.absolute()), "region": config.region.region}
        described = {name: value for name, value in described.items() if name != "sha256"}  # the seal of what it was
        found[f"{inner}/{CONFIG}"] = sealed(described | {"flags": flags})
        found[f"{inner}/summary.yaml"] = atomic.to_yaml(summarise([self.record], skipped=0, flags=flags)).encode()
        return found | {COMMAND: f"{command(config)}\n".encode()}

    def save(self, place: Path) -> Path:
        """Keep it in a new folder.  Raises ValueError for one that is there."""
        if place.exists():
            raise ValueError(f"{place}: is there already")
        guard.give(place.parent)
        for name, data in self.content(place).items():
            guard.make_folder((place / name).parent)
            atomic.write_bytes(place / name, data)
        return place

    def zipped(self, name: str) -> bytes:
        """The folder as a zip file, of which ``name`` is the only entry; its command is for within that folder."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in self.content(Path(".")).items():
                archive.writestr(f"{name}/{path}", data)
        return buffer.getvalue()

    def drop(self) -> None:
        self.temporary.cleanup()


def shown(path: Path) -> Tensor:
    """(3, H, W) in [0, 1], of a stored picture."""
    return to_tensor(decode(path))


def box_of(region: Tensor) -> tuple[float, float, float, float]:
    """Left, top, width and height in shares of the picture.  region: (H, W) bool, somewhere True."""
    height, width = region.shape
    rows, columns = (region.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    wide, high = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    return columns[0] / width, rows[0] / height, wide / width, high / height


def reaches(label: int, record: Record) -> bool:
    """Whether this is the answer that was wanted."""
    return label == record.target if record.target >= 0 else label != record.prediction


def wanted_share(shares: Tensor, record: Record) -> float:
    """The probability of what was wanted: the target, or anything but the prediction.  shares: (K,)."""
    return (shares[record.target] if record.target >= 0 else 1 - shares[record.prediction]).item()


def judgement(ask: Judge, record: Record, pictures: Mapping[str, Path]) -> dict[str, Any]:
    """What an unseen classifier says of both pictures."""
    with torch.no_grad():
        logits = ask(torch.stack([shown(pictures[kind]) for kind in ("original", "explanation")]))
    before, after = predict(logits).tolist()
    shares = [wanted_share(one, record) for one in probabilities(logits)]
    return {"predictions": [before, after], "wanted": shares, "convinced": reaches(after, record)}


def placed(config: MainConfig, place: Path) -> MainConfig:
    """The settings of a result that lies in ``place``."""
    region = config.region.region
    if region and Path(region).name == "region.png":
        region = str(place / "region.png")
    changes = {"image": (str(place / "picture.png"),), "region": region, "output_path": str(place / "again")}
    values = to_dict(config) | changes
    return from_dict(MainConfig, values)


def command(config: MainConfig) -> str:
    """The command line that makes the same: what is not the default, and all that describes the diffusion model."""
    words = ["ace", "explain"] if sys.argv[0].startswith("ace") else ["python", "main.py"]
    values = to_dict(config)
    for name, known in flag_items(MainConfig).items():
        value = values[name]
        if (known.told or value != known.default) and name not in ("data_dir", "num_samples", "num_workers"):
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)
