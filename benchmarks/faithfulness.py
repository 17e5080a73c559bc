"""Does a counterfactual convince a classifier that was never attacked, and does an adversarial example?

    python benchmarks/faithfulness.py

Asks 16 demo photographs of each of seven pairs of classes what would have to change in them, in six ways, and shows
the answers to the two classifiers of demo/ that were never attacked. Writes faithfulness.csv, faithfulness.md and
faithfulness.png into --output; what is in the CSV is not computed again. benchmarks/results has those of the README.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.noise import REFINEMENT
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.runs.config import MainConfig
from benchmarks import trial
from benchmarks.trial import ROOT, Row, shown

UNSEEN = {"a": ROOT / "demo/unseen_a.pt", "b": ROOT / "demo/unseen_b.pt"}
SEEDS = (4, 5, 6)
PLAIN, FAR, SHORTCUT, ACE = "plain PGD", "far PGD", "DiME's shortcut", "ACE"
PLAIN_ITERATIONS = 60
ALL = "all"  # pairs of classes
MEASURES = {  # column -> its title and digits
    "flip": ("flips", 2),
    "transfer a": ("transfer, a", 2),
    "transfer b": ("transfer, b", 2),
    "transfer pooled": ("transfer", 2),
    "l1": ("l1", 3),
    "mask area": ("mask area", 2),
    "frechet": ("Fréchet", 1),
}


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


@torch.no_grad()
def answers(attack: str, batch: Batch, found: Tensor) -> dict[str, Tensor]:
    """Method -> pictures, of one way to a pre-explanation."""
    counterfactual = trial.refined(batch, found)
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
    batch, bench = trial.set_up(config, UNSEEN, count=count)
    batch = trial.with_settings(batch, attack=attacks(config.attack)[attack], seed=seed)
    last = PLAIN_ITERATIONS if attack in (PLAIN, FAR) else config.attack.attack_iterations
    strengths = trial.strengths_of(last)
    found: dict[tuple[str, int], list[Tensor]] = {}
    for part in trial.split(batch):
        for strength, pictures in trial.pre_explanations(part, strengths).items():
            for method, changed in answers(attack, part, pictures).items():
                found.setdefault((method, strength), []).append(changed)
    rows = []
    for (method, strength), parts in found.items():
        calls = unet_calls(method, batch.filter.steps, batch.refiner.steps, strength)
        head = {"attack": attack, "seed": seed, "method": method, "iterations": strength, "U-Net calls": calls}
        changed = torch.cat(parts)
        rows.append(head | {"pair": ALL} | bench.measure(batch, changed))
        for i, pair in enumerate(trial.PAIRS if strength == last else ()):
            own = range(i * count, (i + 1) * count)
            rows.append(head | {"pair": "-".join(pair)} | bench.measure(batch.take(own), changed[list(own)]))
    return rows


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Method -> its rows from few iterations to many."""
    methods: dict[str, list[Row]] = {row["method"]: [] for row in rows}
    for row in sorted(rows, key=lambda row: int(row["iterations"])):
        methods[row["method"]].append(row)
    return methods


def table(rows: Sequence[Row]) -> str:
    """Each method at its most iterations, of the first seed; then the range of the last method over all seeds."""
    lines = [["method", "iterations", *(title for title, _ in MEASURES.values()), "U-Net calls"]]
    for method, own in by_method([row for row in rows if row["seed"] == rows[0]["seed"]]).items():
        figures = [shown(own[-1], name, digits) for name, (_, digits) in MEASURES.items()]
        lines.append([method, own[-1]["iterations"], *figures, own[-1]["U-Net calls"]])
    method, own = list(by_method(rows).items())[-1]
    last = [row for row in own if row["iterations"] == own[-1]["iterations"]]
    ranges = ", ".join(f"{title} {span(last, name, digits)}" for name, (title, digits) in MEASURES.items())
    seeds = ", ".join(f"{row['seed']} (n = {row['n']})" for row in last)
    return f"{markdown_rows(lines)}\n\n{method}, seeds {seeds}: {ranges}.\n"


def span(rows: Sequence[Row], name: str, digits: int) -> str:
    """From the least to the largest."""
    values = [float(row[name]) for row in rows if row[name]]
    ends = dict.fromkeys(f"{end(values):.{digits}f}" for end in (min, max)) if values else ["n/a"]
    return " to ".join(ends)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Flips and transfer of the first seed against l1, a curve a method, with 95 % intervals."""
    figure = Figure(figsize=(11, 4.4), layout="tight")
    panels = figure.subplots(1, 2, sharex=True)
    rows = [row for row in rows if row["seed"] == rows[0]["seed"]]
    for panel, name, title in zip(panels, ("flip", "transfer pooled"), ("flips", "transfer of the flips"), strict=True):
        for method, own in by_method([row for row in rows if row[name]]).items():
            trial.curve(panel, own, "l1", name, label=method, linestyle="--" if "PGD" in method else "-")
        panel.set(xlabel="l1: mean change of a value", ylabel=title, ylim=(-0.03, 1.03))
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    atomic.write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = trial.make_parser(__doc__, photographs=trial.FOR_RESULTS)
    said = "all ways with the first; ACE with each, of half the photographs"
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help=said)
    args, changes = trial.read_arguments(parser, argv)
    config, (first, *others) = trial.demo_config(**changes), args.seeds
    wanted = [(attack, first, args.photographs) for attack in attacks(config.attack)]
    wanted += [(ACE, seed, max(1, args.photographs // 2)) for seed in others]
    jobs = {(attack, seed): partial(compute, attack, seed, config, count) for attack, seed, count in wanted}
    rows = trial.resumed(args.output / "faithfulness.csv", ("attack", "seed"), jobs)
    rows = [row for row in rows if row["pair"] == ALL]
    text = table(rows)
    atomic.write_text(args.output / "faithfulness.md", text)
    draw(rows, args.output / "faithfulness.png")
    print(text)


if __name__ == "__main__":
    main()
