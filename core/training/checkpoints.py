"""The folder of a diffusion model's training: checkpoints, log.csv, and from where the same command goes on."""

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.settings import FlagError, flag_items, to_dict
from ace_counterfactuals.core.training.config import TrainClassifierConfig, TrainDiffusionConfig
from ace_counterfactuals.core.training.trainer import Trainer
from ace_counterfactuals.models.loading import load_weights, save_weights

Losses = dict[str, float]


@dataclass(frozen=True)
class Latest:
    """The last checkpoint that a command wrote. flags: what it depends on; losses: of the steps that log.csv lacks."""

    flags: dict
    step: int
    losses: list[Losses]

    def __post_init__(self) -> None:
        losses = [value for one in self.losses for value in one.values()]
        if type(self.step) is not int or not all(isinstance(value, float) for value in losses):
            raise ValueError("wanted the number of a step, and losses")


class TrainingFolder:
    """The folder of one training, by the flags ``config``."""

    def __init__(self, config: TrainDiffusionConfig):
        self.config, self.path = config, Path(config.training.output_path)
        self.flags = settings_of(config)
        guard.give(self.path)

    def latest(self) -> Latest | None:
        """From where this command goes on; None where it has left nothing.

        Raises FlagError where the folder has checkpoints of another training, and the flags do not say which to take.
        """
        found, younger = None, settings_of(type(self.config)())
        with suppress(FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
            found = Latest(**json.loads((self.path / "latest.json").read_bytes()))
        if found and isinstance(found.flags, dict):
            found = replace(found, flags=younger | found.flags)  # which were made as by the defaults of younger flags
        if found and found.flags == self.flags:
            return found
        if not self.config.training.resume_checkpoint and any(self.path.glob("model*.pt")):
            flags = found.flags if found and isinstance(found.flags, dict) else self.flags
            other = [name for name, value in self.flags.items() if flags.get(name) != value]
            names = f" made with another {', '.join(other)}" if other else ""
            raise FlagError(
                "output_path", f"{self.path}: has checkpoints{names}; give one as resume_checkpoint, or another folder"
            )
        return None

    def checkpoint(self, step: int) -> tuple[Path, Path, Path]:
        """Model, moving average, optimiser."""
        return checkpoint_paths(self.path, step, self.config.training.ema_rate)

    def samples(self, step: int) -> Path:
        return self.path / f"samples{step:06d}.png"

    def regular(self, step: int) -> bool:
        """Whether a training that nothing stops has a checkpoint there."""
        return step % self.config.training.save_interval == 0 or step == self.config.training.lr_anneal_steps

    def save(self, trainer: Trainer, losses: Sequence[Losses]) -> None:
        """Write the three files of a checkpoint, then that it is the latest; the last that a signal left is removed."""
        before = self.latest()
        model, ema, optimiser = self.checkpoint(trainer.step)
        tree, average = {"step": trainer.step, "optimizer": trainer.optimizer.state_dict()}, trainer.ema.state_dict()
        if self.config.training.ema_fp16:
            tree["ema"] = average  # to go on as if nothing had stopped
            average = {name: value.half() for name, value in average.items()}
        save_weights(model, trainer.model.state_dict())
        save_weights(ema, average)
        save_weights(optimiser, tree)
        latest = Latest(self.flags, trainer.step, list(losses))
        atomic.write_json(self.path / "latest.json", vars(latest))
        if before and before.step < trainer.step and not self.regular(before.step):
            guard.remove(self.checkpoint(before.step))


def settings_of(config: TrainDiffusionConfig | TrainClassifierConfig) -> dict[str, Any]:
    """The flags that the weights depend on, and where the pictures are."""
    depended = {name for name, item in flag_items(type(config)).items() if item.result} | {"data_dir"}
    return {name: value for name, value in to_dict(config).items() if name in depended}


def checkpoint_paths(folder: Path, step: int, ema_rate: float) -> tuple[Path, Path, Path]:
    """Model, moving average, optimiser."""
    return folder / f"model{step:06d}.pt", folder / f"ema_{ema_rate}_{step:06d}.pt", folder / f"opt{step:06d}.pt"


def restore(trainer: Trainer, optimiser: Path) -> None:
    """The optimiser, and the moving average where it is stored there in full."""
    tree = load_weights(optimiser)
    trainer.optimizer.load_state_dict(tree["optimizer"])
    if "ema" in tree:
        trainer.ema.load_state_dict(tree["ema"])


class Log:
    """log.csv: a line of mean losses every ``interval`` steps, none of them after ``step``.

    losses: of the steps before it that no line tells of.
    """

    def __init__(self, path: Path, step: int, interval: int, losses: Sequence[Losses] = ()):
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        atomic.write_text(path, "".join(line for line in lines if line.endswith("\n") and not later(line, step)))
        self.file = guard.open_to_write(path, "a")
        self.interval, self.losses = interval, list(losses)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def add(self, step: int, losses: Losses) -> Losses | None:
        """The means, where a line was written."""
        self.losses.append(losses)
        if step % self.interval:
            return None
        means = {name: float(np.mean([one[name] for one in self.losses])) for name in losses}
        line = [step, *(f"{value:.6f}" for value in means.values())]
        csv.writer(self.file, lineterminator="\n").writerow(line)
        self.file.flush()
        self.losses.clear()
        return means


def later(line: str, step: int) -> bool:
    """Whether a line of log.csv is of a later step."""
    first = line.partition(",")[0]
    return first.isdecimal() and int(first) > step
