"""Does a counterfactual convince a classifier that was never attacked, and does an adversarial example?

    python benchmarks/faithfulness.py

Asks 16 demo photographs of each of seven pairs of classes what would have to change in them, in six ways, and shows
the answers to the two classifiers of demo/ that were never attacked. Writes faithfulness.csv, faithfulness.md and
faithfulness.png into --output; what is in the CSV is not computed again. benchmarks/results has those of the README.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.noise import REFINEMENT
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.runs.config import MainConfig
from benchmarks.faithfulness_tables import draw, table
from benchmarks.trial import (
    FOR_RESULTS,
    PAIRS,
    ROOT,
    demo_config,
    make_parser,
    pre_explanations,
    read_arguments,
    read_rows,
    refined,
    set_up,
    split,
    with_settings,
    write_rows,
)

UNSEEN = {"a": ROOT / "demo/unseen_a.pt", "b": ROOT / "demo/unseen_b.pt"}
SEEDS = (4, 5, 6)
PLAIN, FAR, SHORTCUT, ACE = "plain PGD", "far PGD", "DiME's shortcut", "ACE"
PLAIN_ITERATIONS = 60
ALL = "all"  # pairs of classes


def attacks(preset: AttackConfig) -> dict[str, AttackConfig]:
    """The ways to a pre-explanation.

    Plain PGD takes steps of 1/255: those of the preset are coarse without a filter. Far PGD does without the weight of
    the distance, too, and so goes as far as a counterfactual does.
    """
    return {
        PLAIN: replace(preset, attack_joint=False, attack_step=1.0),
        FAR: replace(preset, attack_joint=False, attack_step=1.0, dist_l1=0.0),
        SHORTCUT: replace(preset, attack_joint_shortcut=True),
        ACE: preset,
    }


def strengths_of(attack: str, iterations: int) -> tuple[int, ...]:
    """Iterations that an attack is seen at: a sixth, a third, two thirds and all; the last is the one of the table."""
    last = PLAIN_ITERATIONS if attack in (PLAIN, FAR) else iterations
    return tuple(sorted({max(1, last * sixths // 6) for sixths in (1, 2, 4, 6)}))


@torch.no_grad()
def answers(attack: str, batch: Batch, found: Tensor) -> dict[str, Tensor]:
    """Method -> pictures, of one way to a pre-explanation."""
    counterfactual = refined(batch, found)
    if attack == ACE:
        return {"ACE, pre-explanation": found, "ACE, counterfactual": counterfactual}
    if attack == SHORTCUT:
        return {f"{attack}, refined": counterfactual}
    filtered = batch.filter(found, batch.noise(REFINEMENT)).clamp(0, 1)
    return {attack: found, f"{attack}, filtered": filtered, f"{attack}, refined": counterfactual}


def unet_calls(method: str, steps: int, refining: int, iterations: int) -> int:
    """Forward passes of the U-Net for a photograph; a pass backward goes with each of an attack but the shortcut's."""
    attack, _, what = method.partition(", ")
    after = {"filtered": steps, "refined": refining, "counterfactual": refining}.get(what, 0)
    return after + (0 if attack in (PLAIN, FAR) else steps * iterations)


def compute(attack: str, seed: int, config: MainConfig, count: int) -> list[dict]:
    """The rows of one way to a pre-explanation: one for each method and strength, and at the last for each pair."""
    batch, bench = set_up(config, UNSEEN, count=count)
    batch = with_settings(batch, attack=attacks(config.attack)[attack], seed=seed)
    strengths = strengths_of(attack, config.attack.attack_iterations)
    found: dict[tuple[str, int], list[Tensor]] = {}
    for part in split(batch):
        for strength, pictures in pre_explanations(part, strengths).items():
            for method, shown in answers(attack, part, pictures).items():
                found.setdefault((method, strength), []).append(shown)
    rows = []
    for (method, strength), parts in found.items():
        calls = unet_calls(method, batch.filter.steps, batch.refiner.steps, strength)
        head = {"attack": attack, "seed": seed, "method": method, "iterations": strength, "U-Net calls": calls}
        changed = torch.cat(parts)
        rows.append(head | {"pair": ALL} | bench.measure(batch, changed))
        if strength == strengths[-1]:
            for i, pair in enumerate(PAIRS):
                own = list(range(i * count, (i + 1) * count))
                rows.append(head | {"pair": "-".join(pair)} | bench.measure(batch.take(own), changed[own]))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, photographs=FOR_RESULTS)
    said = "all ways with the first; ACE with each, of half the photographs"
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help=said)
    args, changes = read_arguments(parser, argv)
    config, path = demo_config(**changes), args.output / "faithfulness.csv"
    rows = read_rows(path)
    done = {(row["attack"], int(row["seed"])) for row in rows}
    wanted = [(attack, args.seeds[0]) for attack in attacks(config.attack)] + [(ACE, s) for s in args.seeds[1:]]
    for attack, seed in wanted:
        if (attack, seed) not in done:
            started = time.perf_counter()
            count = args.photographs if seed == args.seeds[0] else max(1, args.photographs // 2)
            rows += compute(attack, seed, config, count)
            write_rows(path, rows)
            print(f"{attack}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    rows = [row for row in read_rows(path) if row["pair"] == ALL]
    text = table(rows)
    atomic.write_text(args.output / "faithfulness.md", text)
    draw(rows, args.output / "faithfulness.png")
    print(text)


if __name__ == "__main__":
    main()
