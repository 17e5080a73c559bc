"""The rows of faithfulness.csv as a Markdown table and a figure."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ace_counterfactuals.core.base import atomic
from benchmarks.trial import markdown

Row = dict[str, str]
MEASURES = (  # column, its title
    ("flip", "flips"),
    ("transfer a", "transfer, a"),
    ("transfer b", "transfer, b"),
    ("transfer pooled", "transfer"),
    ("l1", "l1"),
    ("mask area", "mask area"),
    ("frechet", "Fréchet"),
)
DIGITS = {"l1": 3, "frechet": 1}  # two otherwise


def first_seed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["seed"] == rows[0]["seed"]]


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Method -> its rows from few iterations to many."""
    methods: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["iterations"])):
        methods.setdefault(row["method"], []).append(row)
    return dict(sorted(methods.items(), key=lambda item: [row["method"] for row in rows].index(item[0])))


def table(rows: Sequence[Row]) -> str:
    """Each method at its most iterations, of the first seed; then the range of the last method over all seeds."""
    titles = ["method", "iterations", *(title for _, title in MEASURES), "U-Net calls"]
    lines = [
        [method, own[-1]["iterations"], *(cell(own[-1], name) for name, _ in MEASURES), own[-1]["U-Net calls"]]
        for method, own in by_method(first_seed(rows)).items()
    ]
    every = by_method(rows)
    method = list(every)[-1]
    last = [row for row in every[method] if row["iterations"] == every[method][-1]["iterations"]]
    ranges = ", ".join(f"{title} {span(last, name)}" for name, title in MEASURES)
    seeds = ", ".join(f"{row['seed']} (n = {row['n']})" for row in last)
    return markdown(titles, lines) + f"\n\n{method}, seeds {seeds}: {ranges}.\n"


def cell(row: Row, name: str) -> str:
    """A figure with the ends of its interval; n/a of no picture."""
    if not row[name]:
        return "n/a (0 images)"
    ends = [row.get(f"{name} {end}") for end in ("low", "high")]
    shown = f"{float(row[name]):.{DIGITS.get(name, 2)}f}"
    return f"{shown} ({float(ends[0]):.2f} to {float(ends[1]):.2f})" if all(ends) else shown


def span(rows: Sequence[Row], name: str) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    ends = dict.fromkeys(f"{end(values):.{DIGITS.get(name, 2)}f}" for end in (min, max)) if values else ["n/a"]
    return " to ".join(ends)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Flips and transfer against l1, a curve a method, a point a number of iterations, with 95 % intervals."""
    figure = Figure(figsize=(11, 4.4), layout="tight")
    panels = figure.subplots(1, 2, sharex=True)
    for panel, name, title in zip(panels, ("flip", "transfer pooled"), ("flips", "transfer of the flips"), strict=True):
        for method, own in by_method(first_seed(rows)).items():
            own = [row for row in own if row[name]]
            if not own:
                continue
            x, y, low, high = ([float(row[key]) for row in own] for key in ("l1", name, f"{name} low", f"{name} high"))
            bars = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
            style = {"linestyle": "--" if "PGD" in method else "-", "marker": "o", "markersize": 4, "capsize": 2}
            panel.errorbar(x, y, yerr=bars, label=method, linewidth=1.3, elinewidth=0.6, **style)
        panel.set(xlabel="l1: mean change of a value", ylabel=title, ylim=(-0.03, 1.03))
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    atomic.write_figure(path, figure)
