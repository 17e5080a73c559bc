"""The figures that the original's scripts printed for the recorded faces, by evaluate.py and by the scripts of ours.

They share a cache, so that each network is asked once.
"""

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ace_counterfactuals.core.cli import compute
from ace_counterfactuals.core.evaluation import passes
from ace_counterfactuals.core.evaluation.metrics import flips
from ace_counterfactuals.core.runs.experiment import read_pairs
from ace_counterfactuals.models import judges
from tests.support.paths import GOLDEN
from tests.support.result_folders import evaluate, figures, metrics

PRINTED = {entry["command"][0]: entry for entry in json.loads((GOLDEN / "eval/expected.json").read_text())}
TOLERANCE = {"MNAC": 1e-4, "CD": 1e-4, "FVA": 1e-4, "COUT": 2e-3, "SimSiamSimilarity": 1e-4}
RECORDED = {"mnac": (21.333333, 1e-4), "cd": (16.539033, 1e-4), "cout": (0.0405, 2e-3), "s3": (0.009785, 1e-4)}
RECORDED |= {"fva": (1.0, 1e-4), "fs": (0.8764122, 1e-4)}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A copy of the recorded faces, which can be written to."""
    folder = tmp_path_factory.mktemp("faces")
    shutil.copytree(GOLDEN / "eval/celeba", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The cache that they share."""
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(scope="module")
def words(faces, answers, golden_weights) -> list:
    return [
        "--output_path", faces, "--cache_path", answers, "--exp_name", "exp/swap", "--dataset", "CelebA",
        "--oracle_path", golden_weights("oracle_celeba.pth"), "--query_label", 31, "--target_label", 1,
        "--classifier_path", golden_weights("dive.pth"), "--simsiam_weights", golden_weights("simsiam.pth.tar"),
        "--vggface2_weights", golden_weights("resnet50_ft_weight.pkl"), "--celeba_path", GOLDEN / "data/celeba",
    ]  # fmt: skip


def test_evaluate_gives_the_recorded_figures_in_one_pass_and_again_from_the_cache(faces, words, monkeypatch, capsys):
    assert evaluate(*words) == 0
    place = faces / "Results/exp/swap/evaluation"
    first = figures(place)
    for key, (recorded, tolerance) in RECORDED.items():
        assert first[key]["value"] == pytest.approx(recorded, abs=tolerance), key
        assert first[key]["n"] == 9 and first[key]["low"] <= first[key]["value"] <= first[key]["high"]
    assert first["flip_rate"]["value"] == flips.measure(None, read_pairs(faces, "exp/swap"))[0].mean() == 0.75
    assert all(len(w["sha256"]) == 64 for w in metrics(place)["details"]["weights"].values())

    def refuse(*_, **__):
        raise AssertionError("asked again")

    for module, name in ((judges, "load_state"), (judges, "load_weights"), (passes, "decode")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr("ace_counterfactuals.models.classifiers.load_classifier", refuse)
    assert evaluate(*words) == 0
    assert figures(place) == first
    assert "open this: " in capsys.readouterr().out


def test_evaluate_refuses_an_oracle_of_another_data_set_also_when_features_are_cached(words):
    others = ["CelebAHQ" if word == "CelebA" else word for word in words[:10]]
    with pytest.raises(ValueError, match="^oracle_path .*CelebA's oracle; wanted CelebA-HQ's"):
        evaluate(*others)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+|\b\d+\b", text)]


@pytest.mark.parametrize("script", TOLERANCE)
def test_a_script_prints_the_recorded_figures(script, faces, answers, golden_weights, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "tempfile", SimpleNamespace(TemporaryDirectory=lambda: nullcontext(answers)))
    entry = PRINTED[f"compute_{script}.py"]
    places = {"eval/celeba": faces, "data/celeba": GOLDEN / "data/celeba"}
    words = [golden_weights(Path(w).name) if w.startswith("weights/") else places.get(w, w) for w in entry["command"]]
    capsys.readouterr()  # of making the weights
    assert compute.run(script, [*map(str, words[1:]), "--device", "cpu", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out.splitlines()
    for line, recorded in zip(printed, entry["printed"], strict=False):
        assert re.sub(r"[\d.]+", "", line) == re.sub(r"[\d.]+", "", recorded)
        np.testing.assert_allclose(numbers(line), numbers(recorded), rtol=0, atol=TOLERANCE[script])
    assert len(printed) >= len(entry["printed"])
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["n"] == 9 and all(len(w["sha256"]) == 64 for w in written["weights"].values())
