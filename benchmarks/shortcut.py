"""Does an explanation find a shortcut that is known to be there?

    python benchmarks/shortcut.py

A small mark was planted into 95 % of the coats and 5 % of the pullovers that demo/shortcut/tainted.pt was trained on;
of the control's, half of each class had it. Both are asked the same of the same demo photographs: coats with the mark,
which are to become pullovers, and pullovers without it, which are to become coats. Writes shortcut.csv, shortcut.md and
shortcut.png into --output. benchmarks/results has those of the README.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.data.imageset import ImageSet, with_channels
from ace_counterfactuals.core.evaluation.metrics.distances import distances
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.core.runs.setup import open_images
from ace_counterfactuals.models.classifiers import Classifier
from benchmarks import trial
from benchmarks.mark import CARRIER, OTHER, has_mark, level, plant, ratio_interval, share_of_change

NETWORKS, PICTURES = trial.ROOT / "demo/shortcut", trial.ROOT / "demo/pictures"
CLASSIFIERS = ("tainted", "control")
BATCH = 16
SHOWN = 3  # pictures of each kind in the figure


@dataclass(frozen=True)
class Cell:
    """Photographs of one class, all with the mark or all without it, that both classifiers get right.

    image: (N, 1, H, W) in [0, 1].  indices: (N).  target: number of the other class.
    """

    marked: bool
    image: Tensor
    indices: list[int]
    target: int


def choose(images: ImageSet, classifiers: Sequence[Classifier], *, marked: bool, count: int) -> Cell:
    """The first ``count`` coats with the mark, or pullovers without it."""
    own, other = (CARRIER, OTHER) if marked else (OTHER, CARRIER)
    image, indices = trial.photographs(images, own, classifiers, plant if marked else None)
    return Cell(marked, image[:count], indices[:count], classifiers[0].class_names.index(other))


def counterfactuals(cell: Cell, task: Task) -> Tensor:
    """What the cell's pictures have to become to be of the other class."""
    task, found = replace(task, label_target=cell.target), []
    for i in range(0, len(cell.indices), BATCH):
        part = slice(i, i + BATCH)
        found.append(explain(cell.image[part], task, indices=cell.indices[part]).counterfactual)
    return torch.cat(found)


def figures(cell: Cell, changed: Tensor, classifier: Classifier) -> dict:
    """A row: flips, and what happened to the mark."""
    n = len(cell.indices)
    return {
        "mark": "with" if cell.marked else "without",
        "n": n,
        **trial.share("flip", int((predict(classifier(changed)) == cell.target).sum()), n),
        **trial.share("mark changed", int((has_mark(changed) != cell.marked).sum()), n),
        "share": share_of_change(cell.image, changed).mean().item(),
        "level before": level(cell.image).mean().item(),
        "level after": level(changed).mean().item(),
        "l1": distances(cell.image, changed)[:, 0].mean().item(),
    }


def compute(images: ImageSet, tasks: dict[str, Task], count: int) -> tuple[list[dict], dict]:
    """Rows, and (with the mark, classifier) -> pictures and counterfactuals."""
    rows, found = [], {}
    for marked in (True, False):
        cell = choose(images, [task.classifier for task in tasks.values()], marked=marked, count=count)
        for name, task in tasks.items():
            started = time.perf_counter()
            changed = counterfactuals(cell, task)
            rows.append({"classifier": name, **figures(cell, changed, task.classifier)})
            found[marked, name] = cell.image, changed
            print(f"{name}, {rows[-1]['mark']} the mark: {time.perf_counter() - started:.0f} s", flush=True)
    return rows, found


def compare(found: dict, seed: int) -> list[dict]:
    """How many times the control's the tainted classifier's share of the change in the mark's place is."""
    rows = []
    for title, cells in (("with", (True,)), ("without", (False,)), ("both", (True, False))):
        tainted, control = (
            np.concatenate([share_of_change(*found[marked, name]).numpy() for marked in cells]) for name in CLASSIFIERS
        )
        low, high = ratio_interval(tainted, control, seed=seed)
        rows.append({"mark": title, "ratio": tainted.mean() / max(control.mean(), 1e-12), "low": low, "high": high})
    return rows


def table(rows: list[dict], ratios: list[dict]) -> str:
    """Markdown."""
    titles = "classifier", "mark", "n", "flips", "share of the change in its place", "its level", "mark changed", "l1"
    lines = [list(titles)]
    for row in rows:
        head = [row["classifier"], row["mark"], str(row["n"]), trial.shown(row, "flip"), f"{row['share']:.3f}"]
        levels = f"{row['level before']:.2f} to {row['level after']:.2f}"
        lines.append([*head, levels, trial.shown(row, "mark changed"), f"{row['l1']:.3f}"])
    compared = [
        f"mark {row['mark']}: {row['ratio']:.1f} times the control's share ({row['low']:.1f} to {row['high']:.1f})"
        for row in ratios
    ]
    return "\n\n".join([markdown_rows(lines), *compared]) + "\n"


def draw(found: dict, path: Path) -> None:
    """The first pictures of each cell beside both classifiers' counterfactuals; at the right, the mean |x - ce|."""
    count = min(SHOWN, *(len(image) for image, _ in found.values()))
    figure = Figure(figsize=(1.1 * (3 * count + 2), 2.6), layout="constrained")
    panels = figure.subplots(2, 3 * count + 2)
    for line, marked in zip(panels, (True, False), strict=True):
        (image, tainted), (_, control) = (found[marked, name] for name in CLASSIFIERS)
        shown = [picture.mean(0).numpy() for group in (image, tainted, control) for picture in group[:count]]
        changes = [(image - changed).abs().mean((0, 1)).numpy() for changed in (tainted, control)]
        brightest = [1] * len(shown) + [max(change.max().item() for change in changes)] * 2
        for panel, picture, most in zip(line, [*shown, *changes], brightest, strict=True):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=most, interpolation="nearest")
            panel.axis("off")
    titles = ["original", *(f"{name}: counterfactual" for name in CLASSIFIERS)]
    places = [i * count for i in range(3)] + [-2, -1]
    for place, title in zip(places, titles + [f"{name}: |x - ce|" for name in CLASSIFIERS], strict=True):
        panels[0, place].set_title(title, fontsize=7, loc="left")
    atomic.write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
    args, changes = trial.read_arguments(trial.make_parser(__doc__, photographs=32), argv)
    changes |= {"preset": "audit", "model_path": str(NETWORKS / "ddpm.pt"), "data_dir": str(PICTURES)}
    configs = {name: trial.demo_config(classifier_path=str(NETWORKS / f"{name}.pt"), **changes) for name in CLASSIFIERS}
    control = configs["control"]
    images = with_channels(open_images(control, quiet=True), control.data.image_channels)
    rows, found = compute(images, {name: trial.open_task(config) for name, config in configs.items()}, args.photographs)
    trial.write_rows(args.output / "shortcut.csv", rows)
    text = table(rows, compare(found, control.run.seed))
    atomic.write_text(args.output / "shortcut.md", text)
    draw(found, args.output / "shortcut.png")
    print(text)


if __name__ == "__main__":
    main()
