"""Result folders made by hand, and evaluate.py called in this process."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from ace_counterfactuals.core.cli.evaluate import main
from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.core.runs.layout import FOLDERS
from ace_counterfactuals.core.runs.records import Outcome, Record

SIDE = 16


def evaluate(*words) -> int:
    return main([*map(str, words), "--device", "cpu", "--num-workers", "0"])


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def figures(folder: Path, experiment: int = 0) -> dict:
    return metrics(folder)["experiments"][experiment]["figures"]


def failure(capsys, *words) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    try:
        run_script(lambda: evaluate(*words))
    except SystemExit as ended:
        assert ended.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def draw(path: Path, seed: int, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)


def original(output: Path, index: int, folder: str) -> Path:
    side = "Correct" if folder.startswith("CC") else "Incorrect"
    return output / f"Original/{side}/{index:07d}.png"


def counterfactual(output: Path, index: int, folder: str, experiment: str = "exp/explanation") -> Path:
    return output / f"Results/{experiment}/{folder}/CF/{index:07d}.png"


def write_experiment(output: Path, folders: list[str], experiment: str = "exp/explanation", seed: int = 1000) -> Path:
    """As the original program leaves it: picture i lies in ``folders[i]``.  Returns the experiment's folder."""
    for folder in FOLDERS:
        (output / f"Results/{experiment}/{folder}/CF").mkdir(parents=True, exist_ok=True)
    for index, folder in enumerate(folders):
        if not original(output, index, folder).exists():
            draw(original(output, index, folder), index)
        draw(counterfactual(output, index, folder, experiment), seed + index)
    return output / "Results" / experiment


def write_record(output: Path, index: int, folder: str, run: str = "exp") -> Path:
    """The record of a binary picture whose outcomes lie in ``folder``."""
    correct, success = folder.startswith("CC"), folder.endswith("CCF")
    outcome = Outcome(
        prediction=int(success),
        success=success,
        success5=True,
        changed=success,
        changed5=False,
        prob=0.75,
        source_prob=0.25,
        target_prob=0.75,
        l1=0.1,
        l_inf=0.5,
        top5=((1, 0.75), (0, 0.25)),
    )
    record = Record(
        index=index,
        file=f"pictures/{index}.jpg",
        binary=True,
        label=0 if correct else 1,
        prediction=0,
        target=1,
        correct5=True,
        source_prob=0.9,
        target_prob=0.1,
        mask_area=0.01 * index,
        outcomes={"explanation": outcome, "pre-explanation": outcome},
        top5=((0, 0.9), (1, 0.1)),
    )
    path = output / f"Results/{run}/records/{index:07d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(record)))
    return path
