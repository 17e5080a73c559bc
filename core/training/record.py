"""What is kept of a classifier's training beside its file: flags, a line an epoch, figures of how well it does."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.settings import FlagError, to_dict
from ace_counterfactuals.core.training.checkpoints import CONFIG, LOG
from ace_counterfactuals.core.training.config import TrainClassifierConfig
from ace_counterfactuals.core.training.judged import Measured

COLUMNS = ["epoch", "step", "loss", "accuracy", "lr", "seconds"]
ANSWERS = ("yes as yes", "yes as no", "no as yes", "no as no")
NAMED = 40  # rows of the confusion matrix, beyond which their names would be too small
EVERY = 5.0  # seconds
Told = Callable[[Path], object]


class History:
    """The epochs so far, and the weights of the best one; a part of what an unfinished training goes on from."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.loss, self.pictures = 0.0, 0  # of the epoch in hand

    def add(self, loss: float, pictures: int) -> None:
        """Of a step: its mean over so many pictures."""
        self.loss, self.pictures = self.loss + loss * pictures, self.pictures + pictures

    def close(self, network: nn.Module, accuracy: float | None, **line: Any) -> None:
        """The epoch in hand.  line: further columns."""
        before = [one["accuracy"] for one in self.lines]
        if accuracy is not None and accuracy > max(before, default=-1.0):
            self.best = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.lines.append({"loss": self.loss / self.pictures, "accuracy": accuracy, **line})
        self.loss, self.pictures = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update({name: state[name] for name in vars(self)})


class Record:
    """The folder ``OUTPUT_PATH.training``.  told: is called with it whenever there is something new in it."""

    def __init__(self, config: TrainClassifierConfig, told: Told = lambda _: None):
        file = Path(config.training.output_path)
        if file.is_dir():
            raise FlagError("output_path", f"{file}: is a folder; give the file that is to be written")
        self.config, self.told, self.path = config, told, file.with_name(f"{file.name}.training")
        self.written = -EVERY
        guard.give(self.path)
        guard.make_folder(self.path)  # now, and not after the training

    def begin(self) -> None:
        """What an earlier training left there is removed."""
        guard.remove(self.path / name for name in ("measured.json", "accuracy.csv", "confusion.png", "calibration.png"))
        atomic.write_yaml(self.path / CONFIG, to_dict(self.config))

    def write(self, history: History, *, due: bool = False) -> None:
        """The epochs so far, if it is ``due`` or some seconds after the last time: epochs may be short."""
        if not due and monotonic() - self.written < EVERY:
            return
        self.written = monotonic()
        atomic.write_csv(self.path / LOG, history.lines, COLUMNS)
        self.told(self.path)

    def finish(self, history: History, found: Measured | None) -> None:
        if found:
            atomic.write_json(self.path / "measured.json", asdict(found))
            atomic.write_csv(self.path / "accuracy.csv", found.rows, list(found.rows[0]))
            atomic.write_figure(self.path / "confusion.png", confusion(found))
            atomic.write_figure(self.path / "calibration.png", reliability(found))
        self.write(history, due=True)


def confusion(found: Measured) -> Figure:
    """Shares of each row: of a class what it is taken for, of an attribute how its answers are right and wrong."""
    table = [[n / max(sum(row), 1) for n in row] for row in found.counts]
    columns = ANSWERS if found.attributes else found.names
    side = min(3 + 0.28 * len(table), 14)
    axes = (figure := Figure(figsize=(5 if found.attributes else side + 1, side), layout="constrained")).subplots()
    axes.imshow(table, vmin=0, vmax=1, cmap="Oranges", aspect="auto")
    if len(table) <= NAMED:
        axes.set_yticks(range(len(table)), found.names)
        axes.set_xticks(range(len(columns)), columns, rotation=90)
    if len(table) <= 12:
        for i, row in enumerate(found.counts):
            for j, count in enumerate(row):
                axes.text(j, i, f"{count}", ha="center", va="center", fontsize=8)
    axes.set(xlabel="answer" if found.attributes else "prediction", ylabel="attribute" if found.attributes else "label")
    return figure


def reliability(found: Measured) -> Figure:
    """Accuracy over confidence; below the diagonal the classifier is surer than it should be."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    width, taken = 1 / len(found.bins), [i for i, one in enumerate(found.bins) if one.answers]
    middle = [(i + 0.5) * width for i in taken]
    upper.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=0.8)
    upper.bar(middle, [found.bins[i].accuracy for i in taken], 0.9 * width)
    upper.plot([found.bins[i].confidence for i in taken], [found.bins[i].accuracy for i in taken], "o", color="C1")
    upper.set(ylabel="accuracy", ylim=(0, 1), title=f"expected calibration error {found.ece:.4f}")
    lower.bar(middle, [found.bins[i].answers for i in taken], 0.9 * width, color="0.6")
    lower.set(xlabel="confidence", ylabel="answers", xlim=(0, 1), yscale="log")
    return figure
