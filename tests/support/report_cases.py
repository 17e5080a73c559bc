"""Evaluations of made pictures, for the tests of the page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ace_counterfactuals.core.evaluation.model import Difference, Evaluation, Experiment, Figure, Picture
from ace_counterfactuals.core.runs.layout import FOLDERS

CLASSES = ("boot", "coat", "shirt")


def figure(**changes) -> Figure:
    usual = {"key": "flip_rate", "name": "FR", "value": 0.75, "low": 0.6, "high": 0.9, "interval": "bootstrap"}
    usual |= {"population": "CC+IC, CCF+ICF", "n": 6, "better": "higher", "meaning": "Share that flips."}
    return Figure(**{**usual, **changes})


def write_level(path: Path, levels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path)
    return path


def write_pair(original: Path, changed: Path, mask: Path, size: tuple[int, int]) -> None:
    """Random levels, lighter in the upper left quarter after the change; what is there stays."""
    width, height = size
    levels = np.random.default_rng(int(original.stem)).integers(0, 200, (height, width, 3), dtype=np.uint8)
    quarter = np.zeros((height, width), np.uint8)
    quarter[: height // 2, : width // 2] = 200
    for path, pixels in ((original, levels), (changed, levels + (quarter // 4)[..., None]), (mask, quarter)):
        if not path.exists():
            write_level(path, pixels)


def make_picture(output: Path, root: Path, i: int, file: str, size: tuple[int, int], classes: int) -> Picture:
    """Flipped, but for each fourth."""
    folder = FOLDERS[int(i % 4 == 3)]
    original = output / "Original/Correct" / file
    changed, mask = root / folder / "CF" / file, root / folder / "SM" / file
    if not changed.exists():
        write_pair(original, changed, mask, size)
    source, confidence = i % classes, 0.5 + (i % 50) / 100
    target = (source + 1) % classes
    now = source if i % 4 == 3 else target
    rest = tuple((label, 0.0) for label in range(classes) if label not in (source, target))[:3]
    return Picture(
        name=f"{i:07d}.png", file=f"{CLASSES[source % 3]}/{i}.jpg", folder=folder, label=source, prediction=source,
        target=target, cf_prediction=now, before=((source, confidence), (target, 1 - confidence), *rest),
        after=((now, confidence), (source + target - now, 1 - confidence), *rest),
        values={"l1": (i % 97) / 1000, "l_inf": 0.5, "mask_area": (i % 10) / 10},
        original=original, counterfactual=changed, mask=mask,
    )  # fmt: skip


def make_experiment(
    output: Path, count: int = 6, *, name: str = "exp/explanation", size: tuple[int, int] = (8, 8),
    classes: tuple[str, ...] = CLASSES, files: int = 1000,
) -> Experiment:  # fmt: skip
    """Of at most ``files`` files, which pictures then share."""
    root = output / "Results" / name
    pictures = [make_picture(output, root, i, f"{i % files:07d}.png", size, len(classes)) for i in range(count)]
    return Experiment(
        name=name, root=root, binary=False, classes=classes, pictures=tuple(pictures), figures=(figure(n=count),)
    )


def make_evaluation(output: Path, count: int = 6, **changes) -> Evaluation:
    return Evaluation(experiments=(make_experiment(output, count, **changes),), details={"seed": 4})


def make_comparison(output: Path) -> Evaluation:
    """Two experiments over the same originals; the second has no fourth picture."""
    first = make_experiment(output, 8, name="one/explanation")
    second = make_experiment(output, 8, name="two/explanation")
    second = replace(second, pictures=second.pictures[:3] + second.pictures[4:])
    difference = Difference(
        key="flip_rate", first=first.name, second=second.name, value=-0.25, low=-0.5, high=-0.1, n=7
    )
    return Evaluation(experiments=(first, second), differences=(difference,))


HOSTILE = (
    "<script>document.title='taken'</script>",
    "</script><img src=x onerror=\"document.title='taken'\">",
    "\" onmouseover='x' \u2028\u2029 & {{ 7 * 7 }}",
    "\u202eטקסט עברי\u202c",
    "long " * 60,
)


def make_hostile(output: Path) -> Evaluation:
    """Names of classes, files and pictures that a page could mistake for markup."""
    experiment = make_experiment(output, 10, classes=HOSTILE)
    pictures = [
        replace(picture, name=f"{HOSTILE[i % 5]}{i}.png", file=f"{HOSTILE[(i + 1) % 5]}/{i}\udcff.jpg")
        for i, picture in enumerate(experiment.pictures)
    ]
    figures = (figure(name=HOSTILE[0], meaning=HOSTILE[1], notes=(HOSTILE[2],)),)
    hostile = replace(experiment, name=HOSTILE[0], pictures=tuple(pictures), figures=figures)
    return Evaluation(experiments=(hostile,), details={HOSTILE[0]: HOSTILE[1]})
