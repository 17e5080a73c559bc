"""The folder of a diffusion model's training: checkpoints, log.csv, and from where the same command goes on."""

import csv
import fcntl
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.curves import running_mean
from ace_counterfactuals.core.base.reading import read_json, read_text, read_yaml
from ace_counterfactuals.core.base.schema import Count, Plain, checked
from ace_counterfactuals.core.base.settings import FlagError, flag_items, flags_of, to_dict
from ace_counterfactuals.core.training.config import TrainClassifierConfig, TrainDiffusionConfig, ema_rates
from ace_counterfactuals.core.training.parallel import rank, weights_of
from ace_counterfactuals.core.training.trainer import PARTS, QUARTERS, Trainer
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.models.loading import load_weights, save_weights

Losses = dict[str, float]
CONFIG, LOG, LOSS = "config.yaml", "log.csv", "loss.png"
PASSING = "passing.json"  # which checkpoints lie there for now: perhaps a part of one, or at none of the regular steps
LARGEST = 2**28  # bytes of log.csv, and of the losses that it lacks


@dataclass(frozen=True)
class Latest:
    """The last checkpoint that a command wrote. flags: what it depends on; losses: of the steps that log.csv lacks."""

    flags: dict[str, Plain]
    step: Count
    losses: list[Losses]


@dataclass(frozen=True)
class Passing:
    """Steps of checkpoints."""

    steps: list[Count]


class TrainingFolder:
    """The folder of one training, by the flags ``config``."""

    def __init__(self, config: TrainDiffusionConfig):
        self.config, self.path = config, Path(config.training.output_path)
        self.flags = settings_of(config)
        self.last: int | None = None  # the step of the latest checkpoint
        guard.give(self.path)

    def alone(self) -> AbstractContextManager[None]:
        """Have the folder to oneself.  Raises FlagError where another has it."""
        return alone(self.path)

    def latest(self) -> Latest | None:
        """From where this command goes on; None where it has left nothing.

        Raises FlagError where the folder has checkpoints of another training, and the flags do not say which to take.
        """
        found = None
        with suppress(FileNotFoundError, ValueError):
            path = self.path / "latest.json"
            found = checked(Latest, read_json(path, LARGEST), path)
        younger = settings_of(TrainDiffusionConfig())  # which it may lack
        flags = younger | found.flags if found else self.flags
        if found and flags == self.flags:
            self.last = found.step
            return found
        begun = (self.path / "latest.json").exists() or self.steps() - self.passing()
        if not self.config.training.resume_checkpoint and begun and self.steps():
            other = [name for name, value in self.flags.items() if flags.get(name) != value]
            names = f" made with another {', '.join(other)}" if other else ""
            raise FlagError(
                "output_path", f"{self.path}: has checkpoints{names}; give one as resume_checkpoint, or another folder"
            )
        return None

    def recorded(self) -> dict[str, Any]:
        """The flags in config.yaml, by a training; {} where there is none.

        Raises FlagError where a file that no training wrote has a name that one writes.
        """
        settings = self.path / CONFIG
        with suppress(OSError, ValueError):
            found = read_yaml(settings)
            if isinstance(found, dict) and found.keys() >= set(flags_of(DiffusionConfig)) | {"lr_anneal_steps"}:
                return found
        begun = any(self.path.glob("model*.pt"))
        taken = [path for path in (settings, self.path / LOG, self.path / LOSS) if path.exists() and not begun]
        if taken:
            raise FlagError("output_path", f"{self.path}: has a {taken[0].name} of something else; give another folder")
        return {}

    def checkpoint(self, step: int) -> "Checkpoint":
        return Checkpoint(self.path, step, ema_rates(self.config.training.ema_rate))

    def samples(self, step: int) -> Path:
        return self.path / f"samples{step:06d}.png"

    def regular(self, step: int) -> bool:
        """Whether a training that nothing stops has a checkpoint there."""
        return step % self.config.training.save_interval == 0 or step == self.config.training.lr_anneal_steps

    def save(self, trainer: Trainer, losses: Sequence[Losses]) -> None:
        """Write the files of a checkpoint, then that it is the latest.  All processes call it, the first one writes.

        The last one, if it was none of the regular ones, is removed, and so are those too many.
        """
        before, self.last = self.last, trainer.step
        files = self.checkpoint(trainer.step)
        averages = {rate: weights_of(ema) for rate, ema in trainer.emas.items()}
        tree = trainer.state_dict()
        if self.config.training.ema_fp16:  # to go on as if nothing had stopped
            tree["emas"] = {str(rate): average for rate, average in averages.items()}
            if len(averages) == 1:
                tree["ema"] = tree.pop("emas")[str(files.rates[0])]
            averages = {
                rate: {name: value.half() for name, value in average.items()} for rate, average in averages.items()
            }
        weights = weights_of(trainer.model)
        if rank():
            return
        earlier = set() if before is None else {before}
        stale = (self.passing() | earlier) - {trainer.step, *filter(self.regular, earlier)}
        self.announce(stale | {trainer.step})
        save_weights(files.model, in_order(weights))
        for rate, path in files.emas.items():
            save_weights(path, in_order(averages[rate]))
        save_weights(files.optimiser, tree)
        latest = Latest(self.flags, trainer.step, list(losses))
        atomic.write_json(self.path / "latest.json", vars(latest))
        guard.remove(self.samples(step) for step in stale)
        if keep := self.config.training.keep_checkpoints:
            stale |= set(sorted(self.steps() - stale)[:-keep])
        guard.remove(path for step in stale for path in self.checkpoint(step).files())
        self.announce(set() if self.regular(trainer.step) else {trainer.step})

    def steps(self) -> set[int]:
        """Of the checkpoints that lie there, or a part of each."""
        found = (re.fullmatch(r"model(\d+)\.pt", path.name) for path in self.path.glob("model*.pt"))
        return {int(match[1]) for match in found if match}

    def passing(self) -> set[int]:
        """Steps of the checkpoints that lie there for now."""
        with suppress(OSError, ValueError):
            path = self.path / PASSING
            return set(checked(Passing, read_json(path), path).steps)
        return set()

    def announce(self, steps: set[int]) -> None:
        """That these checkpoints lie there for now, before they do, so that a kill leaves none that nobody removes."""
        if steps:
            atomic.write_json(self.path / PASSING, {"steps": sorted(steps)})
        else:
            guard.remove([self.path / PASSING])


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Have a folder to oneself, where the file system knows locks.  Raises FlagError where another has it."""
    guard.make_folder(folder)
    with guard.open_to_write(folder / "lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = "another training is at work there; wait for it, or give another folder"
            raise FlagError("output_path", f"{folder}: {said}") from None
        except OSError:
            pass
        yield


def in_order(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With their elements in memory as their dimensions are, which other programs may count on."""
    return {name: value.contiguous() for name, value in weights.items()}


def settings_of(config: TrainDiffusionConfig | TrainClassifierConfig) -> dict[str, Any]:
    """The flags that the weights depend on, and where the pictures are."""
    depended = {name for name, item in flag_items(type(config)).items() if item.result} | {"data_dir"}
    return {name: value for name, value in to_dict(config).items() if name in depended}


@dataclass(frozen=True)
class Checkpoint:
    """Its files.  rates: of its moving averages."""

    folder: Path
    step: int
    rates: Sequence[float]

    @property
    def model(self) -> Path:
        return self.folder / f"model{self.step:06d}.pt"

    @property
    def optimiser(self) -> Path:
        return self.folder / f"opt{self.step:06d}.pt"

    @property
    def emas(self) -> dict[float, Path]:
        """By rate."""
        return {rate: self.folder / f"ema_{rate}_{self.step:06d}.pt" for rate in self.rates}

    def files(self) -> list[Path]:
        return [self.model, *self.emas.values(), self.optimiser]


def restore(trainer: Trainer, optimiser: Path) -> None:
    """The optimiser and all beside it, averages too that are stored in full.  Raises ValueError for another file."""
    tree = load_weights(optimiser)
    try:
        emas = {str(trainer.rates[0]): tree["ema"]} if "ema" in tree else tree.get("emas", {})
        trainer.load_state_dict(tree, {float(rate): one for rate, one in emas.items()})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{optimiser}: is no optimiser's state of this training ({said})") from None


class Log:
    """log.csv: a line of mean losses every ``interval`` steps, none of them after ``step``.

    losses: of the steps before it that no line tells of.
    """

    def __init__(self, path: Path, step: int, interval: int, losses: Sequence[Losses] = ()):
        self.interval, self.losses = interval, [one for one in losses if "loss" in one]
        lines = read_text(path, LARGEST).splitlines(keepends=True) if path.exists() else []
        atomic.write_text(path, "".join(line for line in lines if line.endswith("\n") and not later(line, step)))
        self.file = guard.open_to_write(path, "a")

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def add(self, step: int, losses: Losses) -> Losses | None:
        """The means, where a line was written."""
        self.losses.append(losses)
        if step % self.interval:
            return None
        columns = [*(name for name in PARTS if name in losses), "grad_norm", *QUARTERS]
        found = {name: [one[name] for one in self.losses if name in one] for name in columns}
        means = {name: float(np.mean(values)) for name, values in found.items() if values}
        writer = csv.writer(self.file, lineterminator="\n")
        if not self.file.tell():
            writer.writerow(["step", *columns])
        writer.writerow([step, *(f"{means[name]:.6f}" if name in means else "" for name in columns)])
        self.file.flush()
        self.losses.clear()
        return means


def later(line: str, step: int) -> bool:
    """Whether a line of log.csv is of a later step."""
    first = line.partition(",")[0]
    return first.isdecimal() and int(first) > step


def draw_loss(log: Path, path: Path) -> None:
    """The curve of log.csv, if there are lines in it: the loss of each, and their running mean."""
    lines = [line.split(",") for line in log.read_text().splitlines() if line[:1].isdecimal()]
    steps, losses = np.array([[float(line[0]), float(line[1])] for line in lines]).reshape(-1, 2).T
    if not len(steps):
        return
    axes = (figure := Figure(figsize=(6, 3.5), layout="constrained")).subplots()
    axes.semilogy(steps, losses, color="0.75", linewidth=0.8)
    axes.semilogy(*running_mean(steps, losses), color="C0")
    axes.set(xlabel="step", ylabel="loss")
    atomic.write_figure(path, figure)
