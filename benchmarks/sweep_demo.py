"""Choose the demo's settings by evidence: flips, transfer and distance over noise, step and weight of the distance.

    python benchmarks/sweep_demo.py

``choose`` has the rule. Judged by demo/tuning.pt, which judges nothing else, on photographs that
benchmarks/faithfulness.py does not ask about. Every setting is attacked with three seeds, seen at several numbers of
iterations, and refined with several amounts of noise. Writes --output as soon as a setting is done, and computes what
is not there yet. benchmarks/results has the table that decided.
"""

import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ace_counterfactuals.core.method.config import OF_REFINEMENT
from benchmarks import trial

FLAGS = ("attack_filter", "timestep_respacing", "sampling_time_fraction", "attack_step", "dist_l1")
COLUMNS = (*FLAGS, *OF_REFINEMENT)  # those that tell settings apart
SEEDS = (4, 5, 6)
FEW, MANY = (28, 57), (100, 157)  # iterations
REFINED = (("19", 0.11), ("10", 0.2), ("25", 0.12))  # OF_REFINEMENT
SETTINGS = (  # of FLAGS, and the iterations that the attack is seen at; the filter noises to step 83, 111 or 166 of 500
    (("one-step", "13", 0.24, 8.0, 0.0005), FEW),
    (("one-step", "13", 0.24, 8.0, 0.001), FEW),
    (("one-step", "10", 0.3, 8.0, 0.001), FEW),
    (("one-step", "10", 0.3, 12.0, 0.001), FEW),
    (("one-step", "10", 0.3, 8.0, 0.002), FEW),
    (("one-step", "13", 0.24, 4.0, 0.0005), MANY),
    (("one-step", "10", 0.3, 4.0, 0.001), MANY),
    (("one-step", "10", 0.3, 6.0, 0.002), MANY),
    (("one-step", "4", 0.5, 6.0, 0.002), MANY),
)
BOUNDS = {"thorough": (160, 0.055), "preset": (60, 0.07), "quick": (30, 0.07)}  # most calls of the U-Net, largest l1


def choose(rows: Sequence[dict[str, str]], calls: int, l1: float) -> dict[str, str]:
    """Of the rows within the bounds that flip 0.99 or more those of the best transfer, give or take one verdict; of
    these the one of the least change."""
    able = [row for row in rows if int(row["U-Net calls"]) <= calls and float(row["l1"]) <= l1]
    able = [row for row in able if float(row["flip"]) >= 0.99]
    best = max(float(row["transfer tuning"]) for row in able)
    equal = [row for row in able if best - float(row["transfer tuning"]) < 1.01 / int(row["n tuning"])]
    return min(equal, key=lambda row: float(row["l1"]))


def chosen(name: str) -> dict[str, str | float]:
    """The settings that the rule takes from the committed table within some ``BOUNDS``."""
    row = choose(trial.read_rows(trial.ROOT / "benchmarks/results/sweep_demo.csv"), *BOUNDS[name])
    words = {flag: row[flag] for flag in COLUMNS}
    numbers = {flag: float(word) for flag, word in words.items() if flag.endswith(("fraction", "step", "l1"))}
    return words | numbers | {"attack_iterations": int(row["iterations"])}


@lru_cache(maxsize=1)
def attacked(values: tuple, seen: tuple[int, ...]):
    """The photographs, who judges them, and their parts, for each seed, with what the attack found at each number of
    iterations."""
    config = trial.demo_config(**dict(zip(FLAGS, values, strict=True)))
    judges = {"tuning": trial.ROOT / "demo/tuning.pt"}
    batch, bench = trial.set_up(config, judges, count=trial.FOR_TUNING, first=trial.FOR_RESULTS)
    parts = [part for seed in SEEDS for part in trial.split(trial.with_settings(batch, seed=seed))]
    return batch, bench, [(part, trial.pre_explanations(part, seen)) for part in parts]


def compute(values: tuple, seen: tuple[int, ...], refinement: tuple) -> list[dict]:
    """A row for each number of iterations, of all seeds together."""
    batch, bench, parts = attacked(values, seen)
    flags = dict(zip(COLUMNS, values + refinement, strict=True))
    settings = {"sampling": trial.demo_config(**flags).sampling}
    batch, rows = trial.with_settings(batch, **settings), []
    asked = batch.take([*range(len(batch.indices))] * len(SEEDS))
    for strength in seen:
        changed = [trial.refined(trial.with_settings(part, **settings), found[strength]) for part, found in parts]
        head = {"iterations": strength, "U-Net calls": trial.unet_calls(batch, strength) + batch.refiner.steps}
        rows.append(flags | head | bench.measure(asked, torch.cat(changed)))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    args, _ = trial.read_arguments(trial.make_parser(__doc__, trial.RESULTS / "sweep_demo.csv"), argv)
    settings = [(values, seen, refinement) for values, seen in SETTINGS for refinement in REFINED]
    jobs = {values + refinement: partial(compute, values, seen, refinement) for values, seen, refinement in settings}
    rows = trial.resumed(args.output, COLUMNS, jobs)
    for name, bounds in BOUNDS.items():
        print(f"{name}: {choose(rows, *bounds)}")


if __name__ == "__main__":
    main()
