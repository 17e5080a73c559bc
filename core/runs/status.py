"""``--status True``: what is done, missing and running in a result folder. Reads only, and imports no torch."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ace_counterfactuals.core.runs import locks
from ace_counterfactuals.core.runs.layout import ResultFolder, no_such_experiment
from ace_counterfactuals.core.runs.locks import Holder, holders, listen
from ace_counterfactuals.core.runs.runlog import RUNNING

RECENT = 50  # pictures that a process's speed is measured on


@dataclass(frozen=True)
class Worker:
    """A process that holds a chunk. alive: None if its heart was not heard; seconds: that its last pictures took."""

    holder: Holder
    alive: bool | None
    seconds: list[float]

    @property
    def per_minute(self) -> float:
        total = sum(self.seconds)
        return 60 * len(self.seconds) / total if self.alive and total else 0.0

    def __str__(self) -> str:
        life = {True: "alive", False: "gone", None: f"silent for {listening():g} s"}[self.alive]
        speed = f", {self.per_minute:.1f} images/min" if self.per_minute else ""
        return f"chunk {self.holder.chunk} of {self.holder.chunks}: {self.holder.process()}: {life}{speed}"


def status(results: ResultFolder) -> str:
    """The state of an experiment in a few lines.  Raises UserError if there is none."""
    if not results.records_folder.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    finished, skipped = results.read_whole()
    logs = list(read_logs(results.log))
    latest = latest_selection(logs)
    selected = max(latest, len(finished) + len(skipped)) if latest else 0
    missing = max(selected - len(finished) - len(skipped), 0)
    workers = find_workers(results.log, logs)
    flips = sum(record.outcomes["explanation"].success for record in finished.values())
    counts = f"{len(finished)} of {selected} pictures done" if selected else f"{len(finished)} pictures done"
    lines = [f"{results.root}: {counts}, {len(skipped)} skipped, {missing} missing", *map(str, workers)]
    if not any(worker.alive for worker in workers):
        lines.append("nothing is running")
    if finished:
        lines.append(f"flip rate so far {flips / len(finished):.3f} ({flips} of {len(finished)})")
    per_minute = sum(worker.per_minute for worker in workers)
    if per_minute:
        lines.append(f"{per_minute:.1f} images/min, {duration(60 * missing / per_minute)} left at this speed")
    return "\n".join(lines)


def read_logs(folder: Path) -> Iterator[tuple[Path, dict]]:
    """What each process logged of itself, in the order of their beginnings."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue


def latest_selection(logs: list[tuple[Path, dict]]) -> int:
    """Pictures of all chunks that the latest command asked for, which may be fewer than before; 0 if unknown."""
    counts = [values["selected"] for _, values in logs if "selected" in values]
    return counts[-1] if counts else 0


def find_workers(folder: Path, logs: list[tuple[Path, dict]]) -> list[Worker]:
    """Who holds a chunk.  Processes on other hosts are listened to for a moment."""
    found = {holder: holder.alive() for holder in holders(folder)}
    for holder in listen([holder for holder, alive in found.items() if alive is None], listening()):
        found[holder] = True
    running = {(values["host"], values["pid"]): path for path, values in logs if values["ended"] == RUNNING}
    return [Worker(h, alive, recent_seconds(running.get((h.host, h.pid)))) for h, alive in found.items()]


def listening() -> float:
    """Seconds in which a heart must be heard."""
    return 1.5 * locks.BEAT


def recent_seconds(path: Path | None) -> list[float]:
    """What the last pictures of a process took, each."""
    if path is None or not path.with_suffix(".csv").exists():
        return []
    with open(path.with_suffix(".csv"), newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [float(row[1]) for row in rows[-RECENT:] if len(row) == 2 and row[1]]


def duration(seconds: float) -> str:
    """'42 s', '7 min' or '3 h 20 min'."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
