"""An evaluation as files and as text: metrics.json, metrics.csv, table.md and table.tex."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Figure

TABLES = ("metrics.json", "metrics.csv", "table.md", "table.tex")
PARTIAL = "of a part of the experiment alone"
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
LATEX = {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "∞": r"$_\infty$", "σL": r"$\sigma_L$", "≤": r"$\leq$"}
LATEX |= {c: rf"\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
SPECIAL = re.compile("|".join(map(re.escape, LATEX)))


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    atomic.write_json(folder / "metrics.json", as_json(evaluation))
    rows = [row for experiment in evaluation.experiments for row in picture_rows(experiment)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    atomic.write_csv(folder / "metrics.csv", rows, keys or ["experiment", "name"])
    atomic.write_text(folder / "table.md", markdown(evaluation))
    atomic.write_text(folder / "table.tex", latex(evaluation))


def as_json(evaluation: Evaluation) -> dict:
    """Figures by key for each experiment; the pictures are in metrics.csv."""
    experiments = [
        {
            "name": experiment.name,
            "pictures": len(experiment.pictures),
            "complete": experiment.complete,
            "figures": {figure.key: asdict(figure) for figure in experiment.figures},
        }
        for experiment in evaluation.experiments
    ]
    differences = [asdict(difference) for difference in evaluation.differences]
    return {"experiments": experiments, "differences": differences, "details": evaluation.details}


def picture_rows(experiment: Experiment) -> Iterator[dict]:
    for picture in experiment.pictures:
        known = ("name", "file", "folder", "label", "prediction", "target", "cf_prediction", "flipped")
        yield {"experiment": experiment.name} | {name: getattr(picture, name) for name in known} | picture.values


def number(value: float | None) -> str:
    """Four digits, or more where they stand before the point."""
    if value is None:
        return "n/a"
    size = abs(value)
    return format(value, ".1f" if size >= 1000 else ".4g" if size >= 1 or 0 < size < 0.01 else ".4f")


def cell(figure: Figure | None) -> str:
    """Value, interval and number of pictures."""
    if figure is None:
        return ""
    if figure.n == 0:
        return "n/a (0 images)"
    interval = "" if figure.low is None else f" [{number(figure.low)}, {number(figure.high)}]"
    return number(figure.value) + interval + ("" if figure.complete else " *")


def by_key(evaluation: Evaluation) -> dict[str, list[Figure | None]]:
    """Key -> the figure in each experiment, in the order of the first that has it."""
    tables = [{figure.key: figure for figure in experiment.figures} for experiment in evaluation.experiments]
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: [table.get(key) for table in tables] for key in keys}


def body(evaluation: Evaluation) -> list[list[str]]:
    """Rows of figure, a cell an experiment, population and n; the first is the head."""
    rows, numbered = [["figure", *(e.name for e in evaluation.experiments), "pictures", "n"]], note_numbers(evaluation)
    for figures in by_key(evaluation).values():
        there = [figure for figure in figures if figure]
        marks = "".join(f" ({numbered[note]})" for note in dict.fromkeys(n for figure in there for n in figure.notes))
        differing = ([figure.population for figure in there], [str(figure.n) for figure in there])
        last = [" / ".join(dict.fromkeys(values)) for values in differing]
        rows.append([there[0].name + ARROWS[there[0].better] + marks, *map(cell, figures), *last])
    return rows


def note_numbers(evaluation: Evaluation) -> dict[str, int]:
    every = (note for experiment in evaluation.experiments for figure in experiment.figures for note in figure.notes)
    return {note: number for number, note in enumerate(dict.fromkeys(every), 1)}


def notes(evaluation: Evaluation) -> list[str]:
    """What is to be said beside the table: by number, and of which experiments where not of all."""
    said = []
    for note, place in note_numbers(evaluation).items():
        of = [e.name for e in evaluation.experiments if any(note in figure.notes for figure in e.figures)]
        where = f" ({', '.join(of)})" if len(of) < len(evaluation.experiments) else ""
        said.append(f"({place}) {note}{where}.")
    if partial := [e.name for e in evaluation.experiments if not e.complete]:
        said.append(f"* {PARTIAL}: {', '.join(partial)}.")
    return said


def difference_rows(evaluation: Evaluation) -> list[list[str]]:
    """Rows of a figure's differences; the first is the head."""
    names = {figure.key: figure.name for experiment in evaluation.experiments for figure in experiment.figures}
    rows = [["figure", "of", "minus", "difference", "n"]] if evaluation.differences else []
    for d in evaluation.differences:
        shown = f"{number(d.value)} [{number(d.low)}, {number(d.high)}]"
        rows.append([names.get(d.key, d.key), d.second, d.first, shown, str(d.n)])
    return rows


def text(evaluation: Evaluation) -> str:
    """For a terminal."""
    blocks = [aligned(body(evaluation)), aligned(difference_rows(evaluation)), "\n".join(notes(evaluation))]
    return "\n\n".join(filter(None, blocks))


def aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{part:<{width}}" for part, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def markdown(evaluation: Evaluation) -> str:
    blocks = [markdown_rows(body(evaluation)), markdown_rows(difference_rows(evaluation))]
    blocks.append("95 % intervals in brackets; ↑ higher is better, ↓ lower is better.")
    blocks.append("\n".join(f"- {note.removeprefix('* ')}" for note in notes(evaluation)))
    return "\n\n".join(filter(None, blocks)) + "\n"


def markdown_rows(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(part.replace("|", "\\|") for part in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) if rows else ""


def latex(evaluation: Evaluation) -> str:
    """A row an experiment, as papers print it, with half the interval's width; nothing to load but the standard."""
    columns = by_key(evaluation)
    heads = []
    for figures in columns.values():
        first = next(figure for figure in figures if figure)
        heads.append(escaped(first.name + ARROWS[first.better]))
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\hline", " & ".join(["", *heads]) + r" \\", r"\hline"]
    for place, experiment in enumerate(evaluation.experiments):
        cells = [latex_cell(figures[place]) for figures in columns.values()]
        lines.append(" & ".join([escaped(experiment.name), *cells]) + r" \\")
    lines += [r"\hline", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in notes(evaluation))]) + "\n"


def latex_cell(figure: Figure | None) -> str:
    if figure is None:
        return "--"
    if figure.value is None:
        return "n/a"
    half = "" if figure.low is None else rf" $\pm$ {number((figure.high - figure.low) / 2)}"
    return number(figure.value) + half + ("" if figure.complete else "$^*$")


def escaped(text: str) -> str:
    return SPECIAL.sub(lambda found: LATEX[found[0]], text)
