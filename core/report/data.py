"""The values of each picture, written as scripts: a page opened from disk may load scripts, but no other files."""

import json
import math
import os
from itertools import islice
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Likeliest, Picture
from ace_counterfactuals.core.report.sheets import Sheets
from ace_counterfactuals.core.runs.layout import FOLDERS

CHUNK = 1000  # pictures whose five likeliest classes are one file
DECISIONS = ("label", "prediction", "target", "cf_prediction")
LABELS = {
    "l1": "mean change (l1)",
    "l2": "length of the change (l2)",
    "l_inf": "largest change (l inf)",
    "mask_area": "mask area",
    "source_prob": "source class, before",
    "target_prob": "target class, before",
    "cf_source_prob": "source class, after",
    "cf_target_prob": "target class, after",
}


def write_data(evaluation: Evaluation, sheets: dict[str, Sheets], folder: Path, page: Path) -> set[str]:
    """Write the scripts; returns their names.  page: the folder of the page, from which links start."""
    scripts = {"about": describe(evaluation, sheets)}
    for i, experiment in enumerate(evaluation.experiments):
        scripts[f"experiment-{i}"] = columns(experiment, sheets, page)
        for start in range(0, len(experiment.pictures), CHUNK):
            part = experiment.pictures[start : start + CHUNK]
            scripts[f"likeliest-{i}-{start // CHUNK}"] = [[classes(p.before), classes(p.after)] for p in part]
    for name, values in scripts.items():
        atomic.write_text(folder / f"{name}.js", f"receive({as_script(name)}, {as_script(values)});\n")
    return {f"{name}.js" for name in scripts}


def describe(evaluation: Evaluation, sheets: dict[str, Sheets]) -> dict:
    """What holds for all pictures: names, labels of the values, how tiles lie in sheets."""
    experiments = []
    for experiment in evaluation.experiments:
        names = {figure.key: figure.name for figure in experiment.figures} | LABELS
        labels = {key: plain(names.get(key, key)) for key in value_keys(experiment)}
        class_names = experiment.classes and [plain(name) for name in experiment.classes]
        experiments.append({"name": plain(experiment.name), "classes": class_names, "labels": labels})
    layout = {}
    for kind, made in sheets.items():
        width, height = made.size
        layout[kind] = {"grid": made.grid, "suffix": made.suffix, "ratio": width / height, "width": width}
    return {"chunk": CHUNK, "folders": FOLDERS, "experiments": experiments, "sheets": layout}


def columns(experiment: Experiment, sheets: dict[str, Sheets], page: Path) -> dict:
    """A list for each value, in the order of the pictures; -1 where there is no tile, null where there is no link."""
    pictures = experiment.pictures
    places: dict[str, int] = {}
    outputs = (parent.parent for parent in experiment.root.parents if parent.name == "Results")
    linked = any(page.resolve().is_relative_to(output.resolve()) for output in islice(outputs, 1))

    def link(picture: Picture, kind: str) -> int | None:
        path = getattr(picture, kind)
        if not linked or sheets[kind].lossless or path.name != plain(picture.name):
            return None
        return places.setdefault(plain(os.path.relpath(path.parent, page)), len(places))

    return {
        "name": [plain(picture.name) for picture in pictures],
        "file": [plain(picture.file) for picture in pictures],
        "folder": [FOLDERS.index(picture.folder) for picture in pictures],
        **{key: [getattr(picture, key) for picture in pictures] for key in DECISIONS},
        "before": [number(confidence_before(picture)) for picture in pictures],
        "after": [number(confidence_after(picture)) for picture in pictures],
        "values": {key: [number(picture.values.get(key)) for picture in pictures] for key in value_keys(experiment)},
        "tiles": {
            kind: [made.tiles.get(getattr(picture, kind), -1) for picture in pictures] for kind, made in sheets.items()
        },
        "original_place": [link(picture, "original") for picture in pictures],
        "counterfactual_place": [link(picture, "counterfactual") for picture in pictures],
        "places": list(places),
    }


def confidence_before(picture: Picture) -> float | None:
    """Of the prediction on the original."""
    return picture.before[0][1] if picture.before else picture.values.get("source_prob")


def confidence_after(picture: Picture) -> float | None:
    """Of the prediction on the counterfactual."""
    if picture.after:
        return picture.after[0][1]
    known = {picture.prediction: "cf_source_prob", picture.target: "cf_target_prob"}
    return picture.values.get(known.get(picture.cf_prediction, ""))


def value_keys(experiment: Experiment) -> list[str]:
    """Keys of the values: those of LABELS first, then as they come; flip_rate is told by the folder."""
    found = {key: None for picture in experiment.pictures for key in picture.values if key != "flip_rate"}
    return [key for key in LABELS if key in found] + [key for key in found if key not in LABELS]


def classes(likeliest: Likeliest) -> list:
    """[label, probability] of the likeliest classes."""
    return [[label, number(probability)] for label, probability in likeliest]


def number(value: float | None) -> float | None:
    """Five digits, more than the page shows; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def plain(text: str) -> str:
    """Bytes of a file name that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def as_script(values) -> str:
    """JSON that is safe in a script, whatever the names hold: ASCII, and no '<' that could end it."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
