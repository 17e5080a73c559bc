"""Choose the demo's settings by evidence: flips, transfer and distance over noise, step and weight of the distance.

    python benchmarks/sweep_demo.py

The settings were tried one after the other, each where the last ones pointed, all but the last in bfloat16; the last
attack was refined with several amounts of noise. ``choose`` has the rule by which the preset's were chosen.
Judged by demo/tuning.pt, which judges nothing else, on photographs that benchmarks/faithfulness.py does not ask about.
Every setting is attacked once and seen at several numbers of iterations. Writes --output as soon as a setting is done,
and computes what is not there yet. benchmarks/results has the table that decided.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ace_counterfactuals.core.method.config import OF_REFINEMENT, SAME
from benchmarks.trial import (
    FOR_RESULTS,
    FOR_TUNING,
    RESULTS,
    ROOT,
    demo_config,
    make_parser,
    pre_explanations,
    read_arguments,
    read_rows,
    refined,
    set_up,
    split,
    text,
    with_settings,
    write_rows,
)


@dataclass(frozen=True)
class Setting:
    """Flags of an attack that are tried together, the iterations that it is seen at, and what is refined with."""

    timestep_respacing: str
    sampling_time_fraction: float
    attack_step: int
    dist_l1: float
    clip_denoised: bool
    seen: tuple[int, ...]
    refinements: tuple[tuple[str, float], ...] = ((SAME, -1.0),)

    @property
    def flags(self) -> dict:
        """Those of the attack."""
        return {name: value for name, value in vars(self).items() if name not in ("seen", "refinements")}

    def refined(self) -> list[dict]:
        """The flags with those of each refinement."""
        return [self.flags | dict(zip(OF_REFINEMENT, steps, strict=True)) for steps in self.refinements]


FEW, MANY, SMALL_STEPS = (20, 40, 60), (20, 40, 60, 90), (30, 60, 90, 120, 150)
WITH_LESS_NOISE = ((SAME, -1.0), ("6", 0.34), ("8", 0.25), ("10", 0.2), ("10", 0.3), ("25", 0.2), ("20", 0.1))
SETTINGS = (
    Setting("12", 0.34, 4, 0.005, True, FEW),
    Setting("25", 0.2, 4, 0.005, True, FEW),
    Setting("12", 0.34, 4, 0.001, True, FEW),
    Setting("10", 0.4, 4, 0.001, True, FEW),
    Setting("5", 0.4, 4, 0.001, True, (*MANY, 120)),
    Setting("4", 0.5, 4, 0.001, True, MANY),
    Setting("5", 0.4, 4, 0.0, True, MANY),
    Setting("4", 0.5, 2, 0.0005, True, SMALL_STEPS),
    Setting("5", 0.4, 4, 0.001, False, MANY),
    Setting("4", 0.5, 4, 0.0005, False, (*MANY, 120, 150), refinements=WITH_LESS_NOISE),
)
PLACES = tuple(SETTINGS[0].refined()[0])  # columns that tell settings apart


def choose(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Of the rows that flip 0.95 or more at an l1 below 0.08 those of the best transfer, give or take one photograph;
    of these the one of the least change."""
    able = [row for row in rows if float(row["flip"]) >= 0.95 and float(row["l1"]) < 0.08]
    best = max(float(row["transfer tuning"]) for row in able)
    equal = [row for row in able if best - float(row["transfer tuning"]) < 1.01 / int(row["n tuning"])]
    return min(equal, key=lambda row: float(row["l1"]))


def main(argv: Sequence[str] | None = None) -> None:
    args, _ = read_arguments(make_parser(__doc__, RESULTS / "sweep_demo.csv"), argv)
    rows = read_rows(args.output)
    done = {tuple(row[name] for name in PLACES) for row in rows}
    for wanted in SETTINGS:
        missing = [flags for flags in wanted.refined() if tuple(text(flags[name]) for name in PLACES) not in done]
        if missing:
            started = time.perf_counter()
            rows += judge_setting(wanted, missing)
            write_rows(args.output, rows)
            print(f"{wanted.flags}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"chosen: {choose(rows)}")


def judge_setting(wanted: Setting, refinements: list[dict]) -> list[dict]:
    """A row for each refinement and number of iterations."""
    config = demo_config(**wanted.flags)
    batch, bench = set_up(config, {"tuning": ROOT / "demo/tuning.pt"}, count=FOR_TUNING, first=FOR_RESULTS)
    parts = [(part, pre_explanations(part, wanted.seen)) for part in split(batch)]
    rows = []
    for flags in refinements:
        settings = {"sampling": demo_config(**flags).sampling}
        own = with_settings(batch, **settings)
        for strength in wanted.seen:
            changed = torch.cat([refined(with_settings(part, **settings), found[strength]) for part, found in parts])
            calls = own.filter.steps * strength + own.refiner.steps
            head = {"steps": own.filter.steps, "iterations": strength, "U-Net calls": calls}
            rows.append(flags | head | bench.measure(own, changed))
    return rows


if __name__ == "__main__":
    main()
