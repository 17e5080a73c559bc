"""sweep.csv and sweep.png: what each setting of the refinement does to flip rate, size of the change and mask."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.intervals import wilson
from ace_counterfactuals.core.postprocessing.config import SWEPT
from ace_counterfactuals.core.runs.described import read_config
from ace_counterfactuals.core.runs.layout import REFINED
from ace_counterfactuals.core.runs.tables import read_summary, read_table

# Okabe and Ito's palette, which the colour-blind tell apart; the markers tell the lines apart without it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
INK = "#1a1a1a"


def read_sweep(root: Path) -> list[dict]:
    """A row for each setting in the experiment's folder that has its tables."""
    rows = []
    for folder in (path.parent for path in root.glob(f"{REFINED}*/summary.yaml")):
        flags, summary = read_config(folder)["flags"], read_summary(folder / "summary.yaml")
        areas, figures = mask_areas(folder / "results.csv"), summary["explanation"]
        row = {"setting": folder.name, **{name: flags[name] for name in SWEPT}, "n": summary["n"]}
        row |= {"flip_rate": figures["cf"], "l1": figures["l1"], "l_inf": figures["l inf"]}
        rows.append(row | {"mask_area": sum(areas) / len(areas)})
    return sorted(rows, key=lambda row: [*((isinstance(row[name], str), row[name]) for name in SWEPT), row["setting"]])


def mask_areas(table: Path) -> list[float]:
    """Of each picture."""
    try:
        areas = [float(row["mask_area"]) for row in read_table(table, "mask_area")]
    except ValueError as error:
        raise ValueError(f"{table}: mask_area: {str(error).removeprefix(f'{table}: ')}") from None
    if areas and all(0 <= area <= 1 for area in areas):
        return areas
    raise ValueError(f"{table}: mask_area: wanted shares of the pixels, from 0 to 1")


def write_sweep(root: Path) -> Path | None:
    """Write both files over all settings that are there.  Returns the picture's path, None where there is nothing."""
    rows = read_sweep(root)
    if not rows:
        return None
    atomic.write_csv(root / "sweep.csv", rows, list(rows[0]))
    atomic.write_figure(root / "sweep.png", draw(rows, root.name))
    return root / "sweep.png"


def draw(rows: Sequence[dict], title: str) -> Figure:
    """Flip rate against l1 and against mask area; a line joins the settings that differ in one flag alone."""
    along, lines = make_lines(rows)
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name, label in ((left, "l1", "mean absolute change (l1)"), (right, "mask_area", "mask area")):
        for colour, marker, (text, line) in zip(cycle(COLOURS), cycle(MARKERS), lines.items(), strict=False):
            x, y = [row[name] for row in line], [row["flip_rate"] for row in line]
            low, high = zip(*(wilson(row["flip_rate"] * row["n"], row["n"]) for row in line), strict=True)
            axes.vlines(x, low, high, color=colour, alpha=0.3)
            axes.plot(x, y, color=colour, marker=marker, markersize=7, linewidth=1, label=text)
            for row, here in zip(line, zip(x, y, strict=True), strict=True):
                value = shown(along, row[along])
                axes.annotate(value, here, (6, -10), textcoords="offset points", fontsize=8, color=INK)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(color="#e0e0e0", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("flip rate, with 95 % interval")
    counts = sorted({row["n"] for row in rows})
    of = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}, so not of one set of pictures"
    figure.suptitle(f"{title}, {of}\nsettings of the refinement; at the points: --{along}")
    if len(lines) > 1:
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(lines)))
    return figure


def make_lines(rows: Sequence[dict]) -> tuple[str, dict[str, list[dict]]]:
    """The flag that varies along a line, the one with the most values, and the lines by what tells them apart."""
    values = {name: {row[name] for row in rows} for name in SWEPT}
    along = max(reversed(SWEPT), key=lambda name: len(values[name]))
    apart = [name for name in SWEPT if len(values[name]) > 1 and name != along]
    lines: dict[str, list[dict]] = {}
    for row in rows:
        lines.setdefault(", ".join(f"{word(name)} {shown(name, row[name])}" for name in apart), []).append(row)
    return along, lines


def word(name: str) -> str:
    """A flag's name in a legend."""
    return name.removeprefix("sampling_").removeprefix("timestep_").removesuffix("_path").replace("_", " ")


def shown(name: str, value: Any) -> str:
    """A flag's value in a legend."""
    return Path(value).name if name == "model_path" else str(value) or "''"


def sweep_table(rows: Sequence[dict]) -> str:
    """The sweep for a terminal."""
    width = max(len(row["setting"]) for row in rows)
    lines = [f"{'setting':<{width}}{'n':>7}{'flip rate':>11}{'l1':>9}{'mask area':>11}"]
    line = f"{{setting:<{width}}}{{n:>7}}{{flip_rate:>11.3f}}{{l1:>9.4f}}{{mask_area:>11.3f}}"
    return "\n".join([*lines, *(line.format(**row) for row in rows)])
