"""Does a counterfactual convince a classifier that was never attacked, and does an adversarial example?

    python benchmarks/faithfulness.py

Asks 16 demo photographs of each of seven pairs of classes what would have to change in them, in several ways, and shows
the answers to the classifiers of demo/ that were never attacked. Writes faithfulness.csv, faithfulness.md and
faithfulness.png into --output; what is in the CSV is not computed again. benchmarks/results has those of the README.
"""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.method.noise import REFINEMENT
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.core.runs.config import MainConfig
from benchmarks import trial, verdicts
from benchmarks.colour import in_colour
from benchmarks.sweep_demo import chosen
from benchmarks.trial import ROOT, Row, shown

UNSEEN = {name: ROOT / f"demo/unseen_{name}.pt" for name in "abc"}
EARLIER = {f"earlier {name}": ROOT / f"demo/earlier_{name}.pt" for name in "ab"}  # judges of the demo's first networks
SEEDS = (4, 5, 6)
PLAIN, FAR, SHORTCUT, ACE = "plain PGD", "far PGD", "DiME's shortcut", "ACE"
QUICK, THOROUGH = "ACE, quick", "ACE, thorough"
CHAIN, COLOUR = "chain", "chain, three channels"
WITH_EACH_SEED = (QUICK, THOROUGH, ACE)
FORMER = {  # the preset while the demo's networks took three channels
    "attack_filter": "chain",
    "attack_iterations": 150,
    "attack_step": 4.0,
    "dist_l1": 0.0005,
    "timestep_respacing": "4",
    "sampling_time_fraction": 0.5,
    "refine_timestep_respacing": "10",
    "refine_time_fraction": 0.2,
}
ADVERSARIAL = {"attack_filter": "chain", "attack_joint": False, "attack_step": 1.0, "attack_iterations": 60}
WAYS = {  # to a pre-explanation: settings that differ from the preset's
    PLAIN: ADVERSARIAL,  # steps of 1/255: those of the preset are coarse without a filter
    FAR: ADVERSARIAL | {"dist_l1": 0.0},  # goes as far as a counterfactual does
    SHORTCUT: FORMER | {"attack_joint_shortcut": True},
    COLOUR: FORMER,
    CHAIN: FORMER,
    QUICK: chosen("quick"),
    THOROUGH: chosen("thorough"),
    ACE: {},
}
ALL = "all"  # pairs of classes
MEASURES = {  # column -> its title and digits
    "flip": ("flips", 2),
    "transfer a": ("transfer, a", 2),
    "transfer b": ("transfer, b", 2),
    "transfer c": ("transfer, c", 2),
    "transfer pooled": ("transfer", 2),
    "l1": ("l1", 3),
    "mask area": ("mask area", 2),
    "frechet": ("Fréchet", 1),
}


@torch.no_grad()
def answers(way: str, batch: Batch, found: Tensor) -> dict[str, Tensor]:
    """Method -> pictures, of one way to a pre-explanation."""
    refined = trial.refined(batch, found)
    if way in (PLAIN, FAR):
        filtered = batch.filter(found, batch.noise(REFINEMENT)).clamp(0, 1)
        return {way: found, f"{way}, filtered": filtered, f"{way}, refined": refined}
    before = {f"{way}, pre-explanation": found} if way == ACE else {}
    return before | {f"{way}, counterfactual": refined}


def unet_calls(method: str, batch: Batch, iterations: int) -> int:
    """Forward passes of the U-Net for a photograph; a pass backward goes with each of an attack but the shortcut's."""
    after = {"filtered": batch.filter.steps, "refined": batch.refiner.steps, "counterfactual": batch.refiner.steps}
    return after.get(method.rpartition(", ")[2], 0) + trial.unet_calls(batch, iterations)


def compute(way: str, seed: int, config: MainConfig, count: int) -> list[dict]:
    """The rows of one way to a pre-explanation: one for each method and strength, and at the last for each pair."""
    batch, bench = trial.set_up(config, EARLIER | UNSEEN, count=count)
    batch = trial.with_settings(batch, seed=seed)
    if way == COLOUR:
        batch, bench = in_colour(batch, bench)
    last = config.attack.attack_iterations
    strengths = trial.strengths_of(last)
    found: dict[tuple[str, int], list[Tensor]] = {}
    for part in trial.split(batch):
        for strength, pictures in trial.pre_explanations(part, strengths).items():
            for method, changed in answers(way, part, pictures).items():
                found.setdefault((method, strength), []).append(changed)
    rows = []
    for (method, strength), parts in found.items():
        calls = unet_calls(method, batch, strength)
        head = {"attack": way, "seed": seed, "method": method, "iterations": strength, "U-Net calls": calls}
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
    """Each method at its most iterations, of the first seed."""
    lines = [["method", "iterations", *(title for title, _ in MEASURES.values()), "U-Net calls"]]
    for method, own in by_method([row for row in rows if row["seed"] == rows[0]["seed"]]).items():
        figures = [shown(own[-1], name, digits) for name, (_, digits) in MEASURES.items()]
        lines.append([method, own[-1]["iterations"], *figures, own[-1]["U-Net calls"]])
    return markdown_rows(lines) + "\n"


def last_rows(rows: Sequence[Row], way: str) -> list[Row]:
    """Of the counterfactuals of a way at its most iterations, a row a seed."""
    own = [row for row in rows if row["attack"] == way and not row["method"].endswith("pre-explanation")]
    most = max(int(row["iterations"]) for row in own)
    return [row for row in own if int(row["iterations"]) == most]


def over_seeds(rows: Sequence[Row]) -> str:
    """The range of each way over its seeds, and its transfer beside ACE's."""
    lines, wanted = [], (COLOUR, CHAIN, *WITH_EACH_SEED)
    last = {way: last_rows(rows, way) for way in dict.fromkeys(row["attack"] for row in rows) if way in wanted}
    for way, own in last.items():
        ranges = ", ".join(f"{title} {span(own, name, digits)}" for name, (title, digits) in MEASURES.items())
        seeds = ("seeds " if len(own) > 1 else "seed ") + ", ".join(row["seed"] for row in own)
        lines.append(f"{way}, {seeds}: {ranges}, transfer to earlier judges {span(own, 'transfer earlier', 2)}.")
    said = {way: verdicts.of(own) for way, own in last.items()}
    for way, other in product((ACE, THOROUGH), (COLOUR, CHAIN)):
        for name, asked in verdicts.ASKED.items() if {way, other} <= said.keys() else ():
            found = verdicts.difference(said[way], said[other], asked)
            lines.append("{} less {}, transfer {}: {:+.2f} ({:+.2f} to {:+.2f}).".format(way, other, name, *found))
    return "\n\n".join(lines) + "\n"


def by_pair(rows: Sequence[Row]) -> str:
    """Transfer of the flips of the ways that were tried with each seed, by pair, pooled over the seeds."""
    ways = [way for way in (*WITH_EACH_SEED, CHAIN) if any(row["attack"] == way for row in rows)]
    lines = [["pair", *ways]]
    for pair in dict.fromkeys(row["pair"] for row in rows if row["pair"] != ALL):
        own = [last_rows([row for row in rows if row["pair"] == pair], way) for way in ways]
        sums = [verdicts.counts(verdicts.of(of_way), "yn").sum(0) for of_way in own]
        lines.append([pair, *(f"{reached / max(asked, 1):.2f} of {asked}" for reached, asked in sums)])
    return markdown_rows(lines) + "\n"


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
        panel.set_prop_cycle(color=colormaps["tab20"].colors)
        for method, own in by_method([row for row in rows if row[name]]).items():
            trial.curve(panel, own, "l1", name, label=method, linestyle="--" if "PGD" in method else "-")
        panel.set(xlabel="l1: mean change of a value", ylabel=title, ylim=(-0.03, 1.03))
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    atomic.write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = trial.make_parser(__doc__, photographs=trial.FOR_RESULTS)
    said = f"all ways with the first; {', '.join(WITH_EACH_SEED)} with each"
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help=said)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="NAME", help="those to run")
    args, changes = trial.read_arguments(parser, argv)
    jobs = {}
    for way in args.ways:
        config = trial.demo_config(**{**WAYS[way], **changes})
        for seed in args.seeds if way in WITH_EACH_SEED else args.seeds[:1]:
            jobs[way, seed] = partial(compute, way, seed, config, args.photographs)
    rows = trial.resumed(args.output / "faithfulness.csv", ("attack", "seed"), jobs)
    whole = [row for row in rows if row["pair"] == ALL]
    text = "\n".join([table(whole), over_seeds(whole), by_pair(rows)])
    atomic.write_text(args.output / "faithfulness.md", text)
    draw(whole, args.output / "faithfulness.png")
    print(text)


if __name__ == "__main__":
    main()
