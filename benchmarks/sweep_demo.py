"""Choose the demo's settings by evidence: flips, transfer and distance over noise, step and weight of the distance.

    python benchmarks/sweep_demo.py

The settings were tried one after the other, each where the last ones pointed. The last is the preset's, which takes 150
iterations, since flips and transfer still rose with them.
Judged by demo/tuning.pt, which judges nothing else, on photographs that benchmarks/faithfulness.py does not ask about.
Every setting is attacked once and seen at several numbers of iterations. Writes --output as soon as a setting is done,
and computes what is not there yet. benchmarks/results has the table that decided.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.trial import (
    BATCH,
    FOR_RESULTS,
    FOR_TUNING,
    PAIRS,
    RESULTS,
    ROOT,
    ask,
    demo_config,
    make_filter,
    open_bench,
    pre_explanations,
    read_rows,
    refined,
    text,
    write_rows,
)
from core.setup import load_networks, open_images

SEED = 4


@dataclass(frozen=True)
class Setting:
    """Flags that are tried together, and the numbers of iterations that they are seen at."""

    timestep_respacing: str
    sampling_time_fraction: float
    attack_step: int
    dist_l1: float
    clip_denoised: bool
    seen: tuple[int, ...]

    @property
    def flags(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "seen"}


FEW, MANY, SMALL_STEPS = (20, 40, 60), (20, 40, 60, 90), (30, 60, 90, 120, 150)
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
    Setting("4", 0.5, 4, 0.0005, False, (*MANY, 120)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "sweep_demo.csv", help="CSV to write or continue")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = read_rows(args.output)
    done = {tuple(row[name] for name in SETTINGS[0].flags) for row in rows}
    for wanted in SETTINGS:
        if tuple(map(text, wanted.flags.values())) in done:
            continue
        started = time.perf_counter()
        rows += judge_setting(wanted)
        write_rows(args.output, rows)
        print(f"{wanted.flags}: {time.perf_counter() - started:.0f} s", flush=True)


def judge_setting(wanted: Setting) -> list[dict]:
    """A row for each number of iterations."""
    config = demo_config(**wanted.flags, use_fp16=True)
    networks = load_networks(config, -1)
    images = open_images(config, quiet=True)
    questions = ask(images, networks.classifier, PAIRS, count=FOR_TUNING, first=FOR_RESULTS)
    bench = open_bench(networks.classifier, {"tuning": ROOT / "demo/tuning.pt"}, images, questions)
    found: dict[int, list] = {strength: [] for strength in wanted.seen}
    for part in questions.split(BATCH):
        options = {"seed": SEED, "strengths": wanted.seen}
        passed = pre_explanations(part, networks, config.attack, config.sampling, **options)
        for strength, picture in passed.items():
            found[strength].append(refined(part, picture, networks, config.sampling, seed=SEED))
    steps = make_filter(networks, config.sampling).steps
    rows = []
    for strength, parts in found.items():
        head = {**wanted.flags, "steps": steps, "iterations": strength, "U-Net calls": steps * (strength + 1)}
        rows.append(head | bench.measure(questions, torch.cat(parts), config.sampling))
    return rows


if __name__ == "__main__":
    main()
