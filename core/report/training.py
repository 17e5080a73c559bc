"""training.html: how a training goes, by what lies in its folder, in one file that loads nothing."""

import base64
import csv
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.curves import PARTS, running_mean
from ace_counterfactuals.core.base.notices import in_time
from ace_counterfactuals.core.base.reading import read_json, read_text, read_yaml
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode
from ace_counterfactuals.core.report.page import ASSETS, round_up, templates

PAGE = "training.html"
LARGEST = 2**28  # bytes of log.csv
POINTS = 400  # of a curve, each a mean where there are more
GRIDS, WIDEST = 12, 1200  # grids of samples at most, and pixels of their width
CLASSES = 40  # rows and columns of a matrix at most
SAMPLES = re.compile(r"samples(\d+)\.png")
QUARTERS = ("cleanest quarter", "second", "third", "noisiest quarter")
NAMES = ("loss", "mse", "vb")  # columns of a log.csv that does not name them
Series = tuple[np.ndarray, np.ndarray]
"""Steps and values"""


@dataclass(frozen=True)
class Line:
    """A curve of a chart.  kind: its colour; points: of an SVG's polyline."""

    name: str
    kind: str
    points: str


@dataclass(frozen=True)
class Chart:
    """across: what is below its start, middle and end; up: height from 0 to 1 -> what is beside it."""

    title: str
    text: str
    lines: list[Line]
    across: tuple[str, str, str]
    up: Mapping[float, str]


@dataclass(frozen=True)
class Grid:
    """Samples of a step, as a picture within the page."""

    step: int
    source: str
    crisp: bool


def write_training_page(folder: Path) -> Path:
    """Write ``folder/training.html`` from the files there; what is missing or cannot be read is left out."""
    settings, columns = read_settings(folder), read_log(folder)
    student = settings.get("distill") == "True"
    style = "\n".join((ASSETS / name).read_text() for name in ("report.css", "training.css"))
    script = (ASSETS / "theme.js").read_text()
    html = (
        templates()
        .get_template("training.html.j2")
        .render(
            name=folder.name.removesuffix(".training") or str(folder.absolute().name),
            kind="student" if student else "classifier" if "epochs" in settings else "diffusion model",
            state=state_of(folder, settings, columns),
            charts=charts(columns, read_csv(folder / "fid.csv"), of_chain=not student),
            grids=grids(folder),
            measured=read_measured(folder),
            settings=settings,
            style=style,
            script=script,
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    atomic.write_text(folder / PAGE, html)
    return folder / PAGE


def read_settings(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = read_yaml(folder / "config.yaml")
        if isinstance(found, dict):
            return {str(name): "''" if value == "" else str(value) for name, value in found.items()}
    return {}


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns of numbers by name, NaN where there is none; {} where there are no lines."""
    rows: list[list[str]] = []
    with suppress(OSError, ValueError, csv.Error):
        rows = [row for row in csv.reader(read_text(path, LARGEST).splitlines()) if row]
    if not rows:
        return {}
    head = rows.pop(0) if not rows[0][0].isdecimal() else ["step", *NAMES][: len(rows[0])]
    rows = [row for row in rows if len(row) >= len(head)]  # a younger program has written on, with more columns
    return {name: np.array([to_number(row[i]) for row in rows]) for i, name in enumerate(head)} if rows else {}


def read_log(folder: Path) -> dict[str, np.ndarray]:
    found = read_csv(folder / "log.csv")
    return found if "step" in found and np.isfinite(found["step"]).all() else {}


def to_number(text: str) -> float:
    with suppress(ValueError):
        return float(text)
    return math.nan


def read_measured(folder: Path) -> dict[str, Any] | None:
    """How well a classifier does, of which nothing is shown where it is not as train_classifier.py writes it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = read_json(folder / "measured.json")
        names, counts = [str(name) for name in found["names"]], np.array(found["counts"], dtype=np.int64)
        if counts.shape != (len(names), 4 if found["attributes"] else len(names)):
            return None
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        right = counts[:, [0, 3]].sum(1) if found["attributes"] else counts.diagonal()
        return {
            "attributes": bool(found["attributes"]),
            "pictures": int(found["pictures"]),
            "accuracy": float(found["accuracy"]),
            "ece": float(found["ece"]),
            "rows": sorted(zip((right / np.maximum(counts.sum(1), 1)).tolist(), names, strict=True)),
            "names": names,
            "counts": counts.tolist(),
            "heat": np.ceil(10 * shares).astype(int).tolist(),
            "shown": len(names) <= CLASSES,
            "bins": [[float(one[key]) for key in ("answers", "confidence", "accuracy")] for one in found["bins"]],
        }
    return None


def state_of(folder: Path, settings: Mapping[str, str], columns: Mapping[str, np.ndarray]) -> str:
    """How far the training is, and how long it will take."""
    if not columns:
        return "no step was recorded"
    step, last = int(columns["step"][-1]), to_number(settings.get("lr_anneal_steps", "0"))
    if "epochs" in settings:
        epoch, epochs = int(columns["epoch"][-1]), to_number(settings["epochs"])
        left = (epochs - epoch) * median(columns["seconds"])
        return f"epoch {epoch} of {epochs:.0f}" + (f"; about {in_time(left)} left" if left > 0 else "; finished")
    if not last > 0:
        return f"step {step:,}; it goes on until it is stopped"
    said, pace = f"step {step:,} of {last:,.0f}", seconds_a_step(folder)
    if step >= last:
        return f"{said}; finished"
    return f"{said}; about {in_time((last - step) * pace)} left" if pace else said


def seconds_a_step(folder: Path) -> float:
    """By when samples were written, so that a pause between two of them counts little; 0 where that is not known."""
    written = sorted((step, path.stat().st_mtime) for step, path in sampled(folder) if step)
    paces = [(b - a) / (after - before) for (before, a), (after, b) in zip(written, written[1:], strict=False)]
    begun = folder / "config.yaml"
    if not paces and written and begun.exists():
        paces = [(written[0][1] - begun.stat().st_mtime) / written[0][0]]
    return max(median(paces), 0.0) if paces else 0.0


def sampled(folder: Path) -> list[tuple[int, Path]]:
    """Steps and their grids of samples, in order."""
    found = ((SAMPLES.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def grids(folder: Path) -> list[Grid]:
    """The last ones first; of many, some from the whole training."""
    found = sampled(folder)[::-1]
    taken = sorted({round(i) for i in np.linspace(0, len(found) - 1, min(len(found), GRIDS))})
    shown = []
    for step, path in (found[i] for i in taken):
        with suppress(UnreadableImage):
            image = decode(path)
            crisp, buffer = image.width <= WIDEST // 2, BytesIO()
            if not crisp:
                image.thumbnail((WIDEST, WIDEST))
            image.save(buffer, "png" if crisp else "jpeg", quality=90)
            kind, data = "png" if crisp else "jpeg", base64.b64encode(buffer.getvalue()).decode()
            shown.append(Grid(step, f"data:image/{kind};base64,{data}", crisp))
    return shown


def charts(columns: Mapping[str, np.ndarray], fid: Mapping[str, np.ndarray], *, of_chain: bool) -> list[Chart]:
    """Of what the log has.  of_chain: the losses are of many steps of a chain."""
    if not columns:
        return []
    steps, rest = columns["step"], {name: values for name, values in columns.items() if name != "step"}

    def series(names: Mapping[str, str]) -> dict[str, Series]:
        return {shown: (steps, rest[name]) for name, shown in names.items() if name in rest}

    loss = series({"loss": "loss"})
    if loss and len(steps) >= 3 * PARTS:
        loss |= {"running mean": running_mean(steps, rest["loss"])}
    quarters = series({f"loss_q{i}": name for i, name in enumerate(QUARTERS)} if of_chain else {})
    parts = series({"mse": "noise (mse)", "vb": "variance (vb)"})
    norm = series({"grad_norm": "norm of the gradient"})
    asked = [
        chart("Loss", "Of the steps between two lines of the log, on average.", loss),
        chart(
            "Loss by part of the chain", "Each quarter of the steps of the chain learns at a pace of its own.", quarters
        ),
        chart("Parts of the loss", "", parts if len(parts) > 1 else {}),
        chart("Accuracy", "On the pictures that are held out.", series({"accuracy": "accuracy"}), share=True),
        chart("Gradient", "", norm),
        chart("Fréchet distance", "Of samples to pictures, by the features of a network.", frechet(fid)),
        chart("Learning rate", "", series({"lr": "learning rate"}), share=False),
    ]
    return [one for one in asked if one]


def frechet(fid: Mapping[str, np.ndarray]) -> dict[str, Series]:
    return {"distance": (fid["step"], fid["fid"])} if {"step", "fid"} <= fid.keys() else {}


def chart(title: str, text: str, series: Mapping[str, Series], *, share: bool | None = None) -> Chart | None:
    """None without numbers.  share: the values are shares of 1, up to which the chart goes; None: they are losses."""
    series = {name: finite(*one, logarithmic=share is None) for name, one in series.items()}
    series = {name: one for name, one in series.items() if len(one[0]) > 1}
    if not series:
        return None
    first = min(steps[0] for steps, _ in series.values())
    last = max(steps[-1] for steps, _ in series.values())
    values = np.concatenate([values for _, values in series.values()])
    scale, low, high = np.asarray, 0.0, 1.0 if share else round_up(float(values.max()))
    if share is None:
        scale, low, high = np.log, float(values.min()), float(values.max())
    lines = []
    for i, (name, (steps, found)) in enumerate(series.items()):
        x = (steps - first) / max(last - first, 1)
        y = (scale(found) - scale(low)) / max(float(scale(high) - scale(low)), 1e-12)
        points = " ".join(f"{48 + 362 * a:.1f},{192 - 180 * b:.1f}" for a, b in zip(*thinned(x, y), strict=True))
        lines.append(Line(name, f"line-{i}", points))
    middle = math.sqrt(low * high) if share is None else (low + high) / 2
    up = {0.0: f"{low:.3g}", 0.5: f"{middle:.3g}", 1.0: f"{high:.3g}"}
    return Chart(title, text, lines, tuple(f"{(1 - k) * first + k * last:,.0f}" for k in (0, 0.5, 1)), up)


def finite(steps: np.ndarray, values: np.ndarray, *, logarithmic: bool) -> Series:
    kept = np.isfinite(values) & (values > 0 if logarithmic else True)
    return steps[kept], values[kept]


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[Sequence[float], Sequence[float]]:
    """At most POINTS points, each the mean of as many."""
    parts = np.array_split(np.arange(len(x)), min(len(x), POINTS))
    return [float(x[part].mean()) for part in parts], [float(y[part].mean()) for part in parts]
