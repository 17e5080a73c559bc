"""The search: trial after trial, each a step away from the best setting so far, until none is left or time is up."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.notices import in_time, notice
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.preflight.model import measure_batch
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.tuning.config import SearchConfig, TuneConfig
from ace_counterfactuals.core.tuning.evidence import Evidence, told
from ace_counterfactuals.core.tuning.ground import Ground, open_ground, with_flags
from ace_counterfactuals.core.tuning.strength import DRAWS, KEPT, Strength, grid, largest, share_of, try_filters
from ace_counterfactuals.core.tuning.trials import AS_ATTACK, ENOUGH, FLAGS, SEEN, Row, attempt, choose

REFINED = 3  # refinements of a trial, at most
LEAST_L1 = 1e-4  # what a weight of 0 is raised to
NEARBY = 1.05  # amounts of noise within this factor are the same


@dataclass(frozen=True)
class Tuned:
    """start: what the settings that the search began with do; best: what the chosen ones do.  folder: the evidence's;
    preset: the file."""

    start: Row
    best: Row
    trials: int
    folder: Path
    preset: Path


def tune(config: TuneConfig) -> Tuned:
    """Search, and write preset and evidence after every trial.  Raises ValueError for what the user can mend.

    What an earlier search with the same settings has tried is not tried again, and counts in the budget.
    """
    place = Path(config.search.output_path)
    guard.give(place)
    evidence = Evidence(place)
    with hold(evidence.folder / "log"):
        ground = open_ground(config)
        rows = evidence.read(ground, anew=config.search.overwrite)
        try:
            promise(ground, rows, config.search)
            strengths = try_filters(ground)
            evidence.write_filter(ground, strengths)
            climb(ground, rows, strengths, evidence, config.search)
        except torch.OutOfMemoryError:
            reason = "too many pictures at once for the memory; choose a smaller one, or attack_joint_checkpoint True"
            raise FlagError("batch_size", f"{config.run.batch_size}: {reason}") from None
    best = choose(rows)
    if best["flip"] < ENOUGH:
        notice(f"the best of what was tried flips only {best['flip']:.0%}; give more budget or attack_iterations")
    return Tuned(start_row(ground, rows), best, len(trials_of(rows)), evidence.folder, evidence.preset)


def climb(
    ground: Ground, rows: list[Row], strengths: Sequence[Strength], evidence: Evidence, search: SearchConfig
) -> None:
    """Add trials to the rows as long as the budget lasts."""
    try:
        for number, setting in proposals(ground, rows, strengths):
            if is_over(rows, setting, search):
                return notice(f"budget {search.budget} is used up after {number - 1} trials")
            began = time.monotonic()
            made = attempt(ground, number, setting, largest(strengths).flags)
            seconds = round(time.monotonic() - began, 1)
            rows += [row | {"seconds": seconds} for row in made]
            evidence.write_trials(ground, rows)
            tried = ", ".join(f"{name} {value}" for name, value in setting.items())
            notice(f"trial {number} in {in_time(seconds)}: {tried}: {told(choose(made))}")
        notice(f"nothing beside the best is untried after {len(trials_of(rows))} trials")
    finally:  # as far as it came
        if rows:
            evidence.write_views(rows, strengths)


def trials_of(rows: Sequence[Row]) -> dict[tuple, Row]:
    """A row of each trial, by its setting."""
    return {tuple((row | {"attack_iterations": row["at_most"]})[name] for name in FLAGS): row for row in rows}


def setting_of(config, **changes) -> Row:
    flags = {**vars(config.attack), **vars(config.sampling)}
    return {name: flags[name] for name in FLAGS} | changes


def start_row(ground: Ground, rows: Sequence[Row]) -> Row:
    """Of the first trial, with the settings as they were given: its last look, the first refinement."""
    most = ground.config.attack.attack_iterations
    return next(row for row in rows if row["trial"] == 1 and row["attack_iterations"] == most)


def proposals(ground: Ground, rows: list[Row], strengths: Sequence[Strength]) -> Iterator[tuple[int, Row]]:
    """The next trial's number and setting, as long as the ``rows`` of those before leave one.

    First what was given, then the same with the most noise that predictions survive; from there on the neighbours of
    the best so far.
    """
    first = setting_of(ground.config)
    for number in count(len(trials_of(rows)) + 1):
        several = [first, first | largest(strengths).flags]
        if rows:
            several += neighbours(ground, choose(rows), strengths)
        tried = trials_of(rows)
        left = [setting for setting in several if tuple(setting.values()) not in tried]
        if not left:
            return
        yield number, left[0]


def neighbours(ground: Ground, best: Row, strengths: Sequence[Strength]) -> Iterator[Row]:
    """Of a setting, those that are a step away from it in one thing; never noise that predictions do not survive."""
    own = {name: best[name] for name in FLAGS} | {"attack_iterations": best["at_most"]}
    share, _ = share_of(with_flags(ground.config, own | AS_ATTACK), ground)
    for one in [one for one in strengths if one.share < share / NEARBY][-1:]:
        yield own | one.flags
    for one in [one for one in strengths if one.share > share * NEARBY and one.kept >= KEPT][:1]:
        yield own | one.flags
    for factor in (2, 0.5):
        yield own | {"attack_step": own["attack_step"] * factor}
    for factor in (3, 1 / 3):
        yield own | {"dist_l1": float(f"{max(own['dist_l1'] * factor, LEAST_L1):.2g}")}
    if best["attack_iterations"] == best["at_most"]:
        yield own | {"attack_iterations": 2 * best["at_most"]}


def is_over(rows: Sequence[Row], setting: Row, search: SearchConfig) -> bool:
    """Whether another trial would exceed the budget, if it takes as long as the longest so far."""
    seconds, trials = search.limit
    tried = trials_of(rows).values()
    spent = sum(row["seconds"] for row in tried)
    longest = max((row["seconds"] / row["at_most"] for row in tried), default=0.0)
    return len(tried) >= trials or spent + longest * setting["attack_iterations"] > seconds


def promise(ground: Ground, rows: Sequence[Row], search: SearchConfig) -> None:
    """Say how long the search will take, by a timed iteration.  Raises FlagError where that is too long."""
    n, most, (seconds, trials) = len(ground.batch.indices), ground.config.attack.attack_iterations, search.limit
    part = ground.parts({})[0]
    measure_batch(part.take([0]))  # whatever takes longer at first
    cost = measure_batch(part)
    judged = len(SEEN) * REFINED * (1 + DRAWS)
    alone, one = n * DRAWS * len(grid(ground)) * cost.refinement, n * (most * cost.gradient + judged * cost.refinement)
    if not rows and alone + one > seconds:
        takes = f"a trial takes about {in_time(one)} here, and the filter alone {in_time(alone)}"
        advice = "give more, or fewer attack_iterations or num_samples"
        raise FlagError("budget", f"{search.budget}: {takes}; {advice}")
    fits = f"{search.budget} are about {int((seconds - alone) // one)} or more" if trials == float("inf") else ""
    whole = in_time(seconds if fits else alone + trials * one)
    told = f"the filter alone takes about {in_time(alone)}, a trial at most {in_time(one)}"
    notice(f"{told}{'; ' + fits if fits else ''}: {whole} in all, with {n} pictures of {most} iterations")
