"""What an explanation costs by each way to attack, and how well it convinces classifiers that were not attacked.

    python benchmarks/cost.py

The original's loop is the chain as the original program computes it (benchmarks/original.py), so that the cost of each
way is a ratio of one run.

Seven pairs of classes of the demo, the same photographs for every attack, each in a process of its own so that its
peak memory is its own; what a photograph takes is counted (calls of the U-Net, forward and backward, of which a
batch's are its photographs; operations of the U-Net and of a student, as many backward as forward) and measured (CPU
seconds). An attack is seen at several numbers of iterations. Writes
cost.csv, cost.md and cost.png into --output; what is in the CSV is not computed again.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.preflight.model import peak_memory, start_memory
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.guided_diffusion.unet import Deep
from ace_counterfactuals.models.denoisers import DiffusionModel
from benchmarks import original, trial
from benchmarks.faithfulness import FORMER, UNSEEN, by_method

ORIGINAL, STUDENT = "the original's loop", str(trial.ROOT / "demo/student.pt")
METHODS = {  # settings that differ from the preset's
    ORIGINAL: FORMER,
    "chain": FORMER,
    "one step": {},
    "one step, a student": {"attack_student": STUDENT},
    "one step, a student alone": {"attack_student": STUDENT, "attack_student_every": 0},
    "chain of three": {"attack_filter": "chain"},
    "chain of three, deep features kept": {"attack_filter": "chain", "attack_deep_every": 3},
    "one step, ends at 0.9": {"attack_stop_confidence": 0.9},
    "one step, ends at 0.95": {"attack_stop_confidence": 0.95},
    "one step, ends at 0.99": {"attack_stop_confidence": 0.99},
}
COLUMNS = {"forward": 0, "backward": 0, "GFLOP": 1, "CPU s": 1, "peak MiB": 0, "flip": 2, "transfer pooled": 2, "l1": 3}


class Counted:
    """A network that counts the pictures that it is called for, those that gradients went back for, and its work.

    each: 10^9 operations of a call, and of one that takes deep features; backward as many.  known: attributes of the
    network that are asked for.
    """

    def __init__(self, network: Callable[..., Tensor], each: tuple[float, float], **known: Any):
        self.network, self.each, self.forward, self.backward, self.work = network, each, 0, 0, 0.0
        vars(self).update(known)

    def __call__(self, x_t: Tensor, *others: Tensor | None, **kept: Deep) -> Tensor:
        work = len(x_t) * self.each[any(deep.features is not None for deep in kept.values())]
        self.forward, self.work = self.forward + len(x_t), self.work + work
        output = self.network(x_t, *others, **kept)
        if output.requires_grad:
            output.register_hook(partial(self._went_back, work))
        return output

    def _went_back(self, work: float, gradient: Tensor) -> None:
        self.backward, self.work = self.backward + len(gradient), self.work + work


def counting(model: DiffusionModel, x_t: Tensor, *, by_original: bool) -> Counted:
    """The model, and its student if it has one.  x_t: a picture."""

    def gflop(network: Callable[..., Tensor], *inputs: Tensor, **kept: Deep) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs, **kept)
        return counter.get_total_flops() / 1e9

    deep, student = Deep(), None
    each = tuple(gflop(model, x_t, torch.zeros(1), deep=deep) for _ in range(2))
    if model.student:
        student = Counted(model.student, (gflop(model.student, x_t),) * 2, signal=model.student.signal)
    network = replace(model, network=original.OriginalUNet(model.network)) if by_original else model
    return Counted(network, (each[0], each[1]), channels=model.channels, student=student)


def compute(method: str, config: MainConfig, count: int, threads: int) -> list[dict]:
    """A row for each number of iterations that the attack is seen at.

    Where pictures may end before the others there is one row, of whatever each took.
    """
    torch.set_num_threads(threads)
    batch, bench = trial.set_up(config, UNSEEN, count=count)
    counted, device = counting(batch.task.denoiser, batch.image[:1], by_original=method == ORIGINAL), batch.image.device
    batch, before = trial.with_settings(batch, denoiser=counted), start_memory(device)
    attacked = original.attack if method == ORIGINAL else attack
    last = config.attack.attack_iterations
    ends = config.attack.attack_stop_confidence < 1
    strengths = [last] if ends else trial.strengths_of(last)
    found: dict[int, list[Tensor]] = {strength: [] for strength in strengths}
    taken = {strength: torch.zeros(4, dtype=torch.float64) for strength in strengths}

    def now() -> Tensor:
        work = counted.work + (counted.student.work if counted.student else 0.0)
        return torch.tensor([counted.forward, counted.backward, work, time.process_time()], dtype=torch.float64)

    for part in trial.split(batch):
        started = now()

        def see(state, started: Tensor = started) -> None:
            if state.iteration in taken and not ends:
                taken[state.iteration] += now() - started
                found[state.iteration].append(state.found)

        pictures, _ = attacked(part, see)
        if ends:
            taken[last] += now() - started
            found[last].append(pictures)
    rows = []
    for strength in strengths:
        started = now()
        changed = torch.cat([trial.refined(*pair) for pair in zip(trial.split(batch), found[strength], strict=True)])
        forward, backward, work, seconds = ((taken[strength] + now() - started) / len(batch.indices)).tolist()
        memory = (peak_memory(device) - before) / 2**20
        cost = {"forward": forward, "backward": backward, "GFLOP": work, "CPU s": seconds, "peak MiB": memory}
        rows.append({"method": method, "iterations": strength, **cost, **bench.measure(batch, changed)})
    return rows


def table(rows: Sequence[trial.Row]) -> str:
    """Each method at its most iterations."""
    lines = [["method", "at most iterations", *COLUMNS]]
    for method, own in by_method(rows).items():
        figures = [trial.shown(own[-1], name, digits) for name, digits in COLUMNS.items()]
        lines.append([method, own[-1]["iterations"], *figures])
    return markdown_rows(lines) + "\n"


def draw(rows: Sequence[trial.Row], path: Path) -> None:
    """Transfer against operations, a curve a method, with 95 % intervals."""
    figure = Figure(figsize=(8, 4.4), layout="tight")
    panel = figure.subplots()
    for method, own in by_method([row for row in rows if row["transfer pooled"]]).items():
        trial.curve(panel, own, "GFLOP", "transfer pooled", label=method)
    panel.set(
        xlabel="GFLOP of the U-Net and the student a photograph",
        ylabel="transfer of the flips",
        ylim=(-0.03, 1.03),
    )
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    atomic.write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = trial.make_parser(__doc__, photographs=trial.FOR_RESULTS)
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME", help="those to run"
    )
    args, changes = trial.read_arguments(parser, argv)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        jobs = {}
        for method in args.methods:
            config = trial.demo_config(**{**METHODS[method], **changes})
            jobs[(method,)] = partial(pool.apply, compute, (method, config, args.photographs, args.threads))
        rows = trial.resumed(args.output / "cost.csv", ("method",), jobs)
    text = table(rows)
    atomic.write_text(args.output / "cost.md", text)
    draw(rows, args.output / "cost.png")
    print(text)


if __name__ == "__main__":
    main()
