"""What was found, with all that it was made with: to be saved as main.py would, and to be looked at."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ace_counterfactuals.core.api.evaluation import evaluate
from ace_counterfactuals.core.method import explain as method
from ace_counterfactuals.core.runs.begin import begin
from ace_counterfactuals.core.runs.config import MainConfig, OutputConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.recording import draw_pictures, make_record
from ace_counterfactuals.core.runs.setup import check
from ace_counterfactuals.core.runs.tables import write_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ace_counterfactuals.core.evaluation.model import Evaluation


@dataclass(frozen=True)
class Origin:
    """Where an explanation comes from.

    described: what config.yaml says: flags, versions, digests of the weights, names of the classes.
    indices, files, labels: (N) numbers and names of the pictures, and their true classes, -1 where unknown.
    """

    config: MainConfig
    described: dict[str, Any]
    indices: tuple[int, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Explanation(method.Explanation):
    """What was found for N pictures, as tensors; see the class that this one extends, and ``Origin``."""

    origin: Origin

    @classmethod
    def of(cls, parts: Sequence[method.Explanation], origin: Origin) -> "Explanation":
        """The batches together."""
        columns = {item.name: [getattr(part, item.name) for part in parts] for item in fields(method.Explanation)}
        joined: dict[str, Any] = {
            name: None if values[0] is None else torch.cat(values) for name, values in columns.items()
        }
        return cls(**joined, origin=origin)

    def __repr__(self) -> str:
        records = [make_record(self, i, index=i, file="", label=-1) for i in range(len(self.image))]
        flipped = sum(record.outcomes["explanation"].success for record in records)
        return f"Explanation({len(self.image)} pictures, {flipped} flipped)"

    def save(self, folder: str | Path, exp_name: str = "exp") -> Path:
        """Write config.yaml, records, pictures, tables and sheet into ``folder``/Results/``exp_name``, and return that.

        The folder is main.py's: evaluate.py and postprocessing.py read it, and what is saved there with the same
        settings under other indices stays. Networks that no file was named for have no path and no digest there.
        Raises ValueError for a folder of other settings or pictures.
        """
        results, origin = ResultFolder(Path(folder), exp_name), self.origin
        config = replace(origin.config, output=OutputConfig(output_path=str(folder), exp_name=exp_name))
        check(config)
        begin(config, results, origin.described)
        with hold(results.log):
            for i, (index, file, label) in enumerate(zip(origin.indices, origin.files, origin.labels, strict=True)):
                record = make_record(self, i, index=index, file=file, label=label)
                results.write(record, draw_pictures(self, i, span=config.data.span))
            finished, skipped = results.read()
            write_tables(config, results, finished, finished, skipped)
        return results.root

    def evaluate(
        self, folder: str | Path | None = None, exp_name: str = "exp", *, only: Sequence[str] = (), **flags
    ) -> "Evaluation":
        """Save, and compute every figure that the given weights allow; see ``evaluate``.

        folder: where to save; if None, nothing stays, and the paths of the evaluation lead nowhere.
        """
        if folder is not None:
            self.save(folder, exp_name)
            return evaluate(folder, exp_name, only=only, **flags)
        with TemporaryDirectory() as aside:
            return self.evaluate(aside, exp_name, only=only, **flags)

    def _repr_png_(self) -> bytes:
        """The sheet, as a notebook shows it: originals, pre-explanations, masks and counterfactuals."""
        with TemporaryDirectory() as folder:
            return (self.save(folder) / "sheet.png").read_bytes()

    def show(self) -> "Figure":
        """The sheet as a figure of pyplot, which shows it by its own rules."""
        from matplotlib import pyplot

        with Image.open(io.BytesIO(self._repr_png_())) as sheet:
            figure = pyplot.figure(figsize=(sheet.width / 100, sheet.height / 100), dpi=100)
            axes = figure.add_axes((0, 0, 1, 1))
            axes.imshow(sheet)
        axes.set_axis_off()
        return figure
