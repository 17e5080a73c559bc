"""Judge a preset of tune.py on photographs that it did not see, beside the preset that it started from.

    python benchmarks/tune.py tuned/tuned.yaml

Seven pairs of classes of the demo, the photographs that settings are tuned on by benchmarks/sweep_demo.py; tune.py sees
those before them. Writes tune.csv and tune.md into --output; what is in the CSV is not computed again.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import flags_of, from_dict
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.runs.config import MainConfig
from benchmarks import trial
from benchmarks.faithfulness import UNSEEN

METHOD = flags_of(AttackConfig).keys() | flags_of(SamplingConfig).keys()
COLUMNS = {"flip": 2, "transfer a": 2, "transfer b": 2, "transfer c": 2, "transfer pooled": 2, "l1": 3, "mask area": 2}


def config_of(preset: str) -> MainConfig:
    """The demo's networks and photographs with the preset's attack and refinement."""
    demo = {name: value for name, value in read_preset(MainConfig, "fashion").items() if name not in METHOD}
    return from_dict(MainConfig, {**demo, "device": "cpu", **read_preset(MainConfig, preset)})


def compute(preset: str, count: int) -> list[dict]:
    """The row of a preset."""
    batch, bench = trial.set_up(config_of(preset), UNSEEN, count=count, first=trial.FOR_RESULTS)
    changed = torch.cat([trial.refined(part, attack(part)[0]) for part in trial.split(batch)])
    return [{"preset": Path(preset).stem, **bench.measure(batch, changed)}]


def table(rows: Sequence[trial.Row]) -> str:
    lines = [["preset", "n", *COLUMNS]]
    lines += [[row["preset"], row["n"], *(trial.shown(row, *column) for column in COLUMNS.items())] for row in rows]
    return markdown_rows(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = trial.make_parser(__doc__)
    parser.add_argument("preset", nargs="*", help="of tune.py; beside it small is judged")
    parser.add_argument("--photographs", type=int, default=4, help="of each class that is asked about, at most 5")
    args, _ = trial.read_arguments(parser, argv)
    jobs = {(Path(name).stem,): partial(compute, name, args.photographs) for name in ("small", *args.preset)}
    text = table(trial.resumed(args.output / "tune.csv", ("preset",), jobs))
    atomic.write_text(args.output / "tune.md", text)
    print(text)


if __name__ == "__main__":
    main()
