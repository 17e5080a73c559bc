"""What the page knows of each picture, as scripts: a page opened from disk may load scripts, but fetch nothing."""

import json
import math
import os
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Likeliest, Picture
from ace_counterfactuals.core.report.sheets import Sheets
from ace_counterfactuals.core.runs.layout import FOLDERS

CHUNK = 1000  # pictures whose five likeliest classes are one file
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
            likeliest = [[shortened(picture.before), shortened(picture.after)] for picture in part]
            scripts[f"likeliest-{i}-{start // CHUNK}"] = likeliest
    for name, values in scripts.items():
        atomic.write_text(folder / f"{name}.js", f"receive({as_script(name)}, {as_script(values)});\n")
    return {f"{name}.js" for name in scripts}


def describe(evaluation: Evaluation, sheets: dict[str, Sheets]) -> dict:
    """What holds for all pictures."""
    return {
        "chunk": CHUNK,
        "folders": FOLDERS,
        "experiments": [
            {
                "name": plain(experiment.name),
                "classes": experiment.classes and [plain(name) for name in experiment.classes],
                "labels": {key: label_of(experiment, key) for key in value_keys(experiment)},
            }
            for experiment in evaluation.experiments
        ],
        "sheets": {
            kind: {
                "grid": made.grid,
                "suffix": made.suffix,
                "ratio": made.ratio,
                "width": made.size[0],
            }
            for kind, made in sheets.items()
        },
    }


def columns(experiment: Experiment, sheets: dict[str, Sheets], page: Path) -> dict:
    """A list a fact, in the order of the pictures; tiles are -1 and links null where there is none."""
    pictures = experiment.pictures
    places: dict[str, int] = {}
    output = output_folder(experiment.root)
    linked = output is not None and page.resolve().is_relative_to(output.resolve())

    def link(picture: Picture, kind: str) -> int | None:
        path = getattr(picture, kind)
        if not linked or sheets[kind].lossless or path.name != plain(picture.name):
            return None
        return places.setdefault(plain(os.path.relpath(path.parent, page)), len(places))

    return {
        "name": [plain(picture.name) for picture in pictures],
        "file": [plain(picture.file) for picture in pictures],
        "folder": [FOLDERS.index(picture.folder) for picture in pictures],
        "label": [picture.label for picture in pictures],
        "prediction": [picture.prediction for picture in pictures],
        "target": [picture.target for picture in pictures],
        "cf_prediction": [picture.cf_prediction for picture in pictures],
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
    """Known ones first, then as the pictures bring them; whether it flipped is shown otherwise."""
    found = {key: None for picture in experiment.pictures for key in picture.values if key != "flip_rate"}
    return [key for key in LABELS if key in found] + [key for key in found if key not in LABELS]


def label_of(experiment: Experiment, key: str) -> str:
    figures = {figure.key: figure.name for figure in experiment.figures}
    return LABELS.get(key) or plain(figures.get(key, key))


def output_folder(root: Path) -> Path | None:
    """OUTPUT of OUTPUT/Results/EXP."""
    return next((parent.parent for parent in root.parents if parent.name == "Results"), None)


def shortened(likeliest: Likeliest) -> list:
    return [[label, number(probability)] for label, probability in likeliest]


def number(value: float | None) -> float | None:
    """Five digits, which no one sees the end of; None for what is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def plain(text: str) -> str:
    """A file name's bytes that are no UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def as_script(values) -> str:
    """JSON that is safe in a script, whatever the names hold: ASCII, and no '<' that could end it."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
