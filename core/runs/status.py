"""``--status True``: what is done, missing and running in a result folder. Reads only, and imports no torch."""

from ace_counterfactuals.core.runs import locks
from ace_counterfactuals.core.runs.layout import ResultFolder, no_such_experiment
from ace_counterfactuals.core.runs.locks import holders, listen
from ace_counterfactuals.core.runs.runlog import images_per_minute, selected_pictures


def status(results: ResultFolder) -> str:
    """The state of an experiment in a few lines; processes on other hosts are listened to for a moment.

    Raises FlagError if there is none.
    """
    if not results.records_folder.is_dir():
        raise no_such_experiment(results.output, results.exp_name)
    finished, skipped = results.read_whole()
    latest = selected_pictures(results.log)
    selected = max(latest, len(finished) + len(skipped)) if latest else 0
    missing = max(selected - len(finished) - len(skipped), 0)
    counts = f"{len(finished)} of {selected} pictures done" if selected else f"{len(finished)} pictures done"
    lines = [f"{results.root}: {counts}, {len(skipped)} skipped, {missing} missing"]

    listening, per_minute = 1.5 * locks.BEAT, 0.0
    alive = {holder: holder.alive() for holder in holders(results.log)}
    alive |= dict.fromkeys(listen([holder for holder in alive if alive[holder] is None], listening), True)
    for holder, lives in alive.items():
        speed = images_per_minute(results.log, holder.host, holder.pid) if lives else 0.0
        per_minute += speed
        said = {True: "alive", False: "gone", None: f"silent for {listening:g} s"}[lives]
        shown = f", {speed:.1f} images/min" if speed else ""
        lines.append(f"chunk {holder.chunk} of {holder.chunks}: {holder}: {said}{shown}")
    if not any(alive.values()):
        lines.append("nothing is running")
    if finished:
        flips = sum(record.outcomes["explanation"].success for record in finished.values())
        lines.append(f"flip rate so far {flips / len(finished):.3f} ({flips} of {len(finished)})")
    if per_minute:
        lines.append(f"{per_minute:.1f} images/min, {duration(60 * missing / per_minute)} left at this speed")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """'42 s', '7 min' or '3 h 20 min'."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
