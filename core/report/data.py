"""The values of each picture, written as scripts: a page opened from disk may load scripts, but no other files."""

import json
import math
import os
from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Picture
from ace_counterfactuals.core.report.sheets import Sheets
from ace_counterfactuals.core.runs.layout import FOLDERS
from ace_counterfactuals.core.runs.records import WEAK

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
        likeliest = [
            [[(label, number(share)) for label, share in classes] for classes in (picture.before, picture.after)]
            for picture in experiment.pictures
        ]
        for start in range(0, len(likeliest), CHUNK):
            scripts[f"likeliest-{i}-{start // CHUNK}"] = likeliest[start : start + CHUNK]
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
    return {"chunk": CHUNK, "weak": WEAK, "folders": FOLDERS, "experiments": experiments, "sheets": layout}


def columns(experiment: Experiment, sheets: dict[str, Sheets], page: Path) -> dict:
    """A list for each value, in the order of the pictures; -1 where there is no tile, null where there is no link."""
    pictures = experiment.pictures
    places: dict[str, int] = {}
    output = next((parent.parent for parent in experiment.root.parents if parent.name == "Results"), None)
    beside = output is not None and page.resolve().is_relative_to(output.resolve())

    def link(picture: Picture, kind: str) -> int | None:
        path = getattr(picture, kind)
        if not beside or sheets[kind].suffix == "png" or path.name != plain(picture.name):
            return None  # a PNG's tiles are the whole pictures
        return places.setdefault(plain(os.path.relpath(path.parent, page)), len(places))

    shares = [confidences(picture) for picture in pictures]
    decisions = ("label", "prediction", "target", "cf_prediction")
    return {
        "name": [plain(picture.name) for picture in pictures],
        "file": [plain(picture.file) for picture in pictures],
        "folder": [FOLDERS.index(picture.folder) for picture in pictures],
        **{key: [getattr(picture, key) for picture in pictures] for key in decisions},
        "before": [before for before, _ in shares],
        "after": [after for _, after in shares],
        "values": {key: [number(picture.values.get(key)) for picture in pictures] for key in value_keys(experiment)},
        "tiles": {
            kind: [made.tiles.get(getattr(picture, kind), -1) for picture in pictures] for kind, made in sheets.items()
        },
        "original_place": [link(picture, "original") for picture in pictures],
        "counterfactual_place": [link(picture, "counterfactual") for picture in pictures],
        "places": list(places),
    }


def confidences(picture: Picture) -> tuple[float | None, float | None]:
    """In the prediction on the original, and in that on the counterfactual."""
    values, now = picture.values, picture.cf_prediction
    probability = {picture.prediction: "cf_source_prob", picture.target: "cf_target_prob"}.get(now, "")
    before = picture.before[0][1] if picture.before else values.get("source_prob")
    return number(before), number(picture.after[0][1] if picture.after else values.get(probability))


def flips_weakly(picture: Picture) -> bool:
    """See ``Outcome.weak``; False where the probability is not known."""
    probability = confidences(picture)[1]
    return picture.flipped and probability is not None and probability < WEAK


def value_keys(experiment: Experiment) -> list[str]:
    """Keys of the values: those of LABELS first, then as they come; flip_rate is told by the folder."""
    found = {key: None for picture in experiment.pictures for key in picture.values if key != "flip_rate"}
    return [key for key in LABELS if key in found] + [key for key in found if key not in LABELS]


def number(value: float | None) -> float | None:
    """Five digits, more than the page shows; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def plain(text: str) -> str:
    """Bytes of a file name that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def as_script(values) -> str:
    """JSON that is safe in a script, whatever the names hold: ASCII, and no '<' that could end it."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
