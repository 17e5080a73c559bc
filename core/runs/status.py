"""``--status True``: what is done, missing and running in a result folder. Reads only, and imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from ace_counterfactuals.core.runs import locks
from ace_counterfactuals.core.runs.files import read_logs, read_seconds, selected_pictures
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
        return f"chunk {self.holder.chunk} of {self.holder.chunks}: {self.holder}: {life}{speed}"


def status(results: ResultFolder) -> str:
    """The state of an experiment in a few lines.  Raises FlagError if there is none."""
    if not results.records_folder.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    finished, skipped = results.read_whole()
    latest = selected_pictures(results.log)
    selected = max(latest, len(finished) + len(skipped)) if latest else 0
    missing = max(selected - len(finished) - len(skipped), 0)
    workers = find_workers(results.log)
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


def find_workers(folder: Path) -> list[Worker]:
    """Who holds a chunk.  Processes on other hosts are listened to for a moment."""
    found = {holder: holder.alive() for holder in holders(folder)}
    for holder in listen([holder for holder, alive in found.items() if alive is None], listening()):
        found[holder] = True
    running = {
        (values["host"], values["pid"]): path for path, values in read_logs(folder) if values["ended"] == RUNNING
    }
    logs = {holder: running.get((holder.host, holder.pid)) for holder in found}
    seconds = {holder: read_seconds(log.with_suffix(".csv"))[-RECENT:] if log else [] for holder, log in logs.items()}
    return [Worker(holder, alive, seconds[holder]) for holder, alive in found.items()]


def listening() -> float:
    """Seconds in which a heart must be heard."""
    return 1.5 * locks.BEAT


def duration(seconds: float) -> str:
    """'42 s', '7 min' or '3 h 20 min'."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
