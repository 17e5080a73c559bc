"""evaluate.py: the recorded figures, one pass over the pictures, several experiments, and what it writes."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.settings import to_dict
from ace_counterfactuals.core.cli import compute
from ace_counterfactuals.core.evaluation import passes, session
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.runs.begin import package_version
from ace_counterfactuals.core.runs.experiment import read_pairs
from ace_counterfactuals.core.runs.records import read_record
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.judges import load_features
from tests.support.result_folders import counterfactual, evaluate, figures, metrics, write_experiment, write_record
from tests.support.toys import SIDE, Workshop, write_classifier

MIXED = ["CC/CCF"] * 5 + ["CC/ICF"] * 2 + ["IC/CCF"] * 2 + ["IC/ICF"]


@pytest.fixture
def output(tmp_path):
    write_experiment(tmp_path, MIXED)
    return tmp_path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("network") / "toy.pt")


def test_evaluate_without_weights_gives_flip_rate_and_distances(output, capsys):
    assert evaluate("--output-path", output) == 0
    found = figures(output / "Results/exp/evaluation")
    assert list(found) == ["flip_rate", "l1", "l2", "l_inf"]
    assert found["flip_rate"]["value"] == 0.7 and found["l1"]["n"] == 10
    pairs = read_pairs(output, "exp")
    with_numpy = [np.abs(pixels(p.original) - pixels(p.counterfactual)).mean() for p in pairs]
    assert found["l1"]["value"] == pytest.approx(np.mean(with_numpy), abs=1e-7)
    captured = capsys.readouterr()
    assert "is read as exp/explanation" in captured.err and "no COUT, because the classifier" in captured.err


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), float) / 255


def test_evaluate_reads_each_picture_once_and_asks_a_second_experiment_only_what_is_new(
    output, network, monkeypatch, capsys
):
    decoded, asked = [], []
    decode, answer = passes.decode, session.Task.answer
    monkeypatch.setattr(passes, "decode", lambda path: decoded.append(path) or decode(path))
    monkeypatch.setattr(session.Task, "answer", lambda task, batch: asked.extend(batch) or answer(task, batch))
    evaluate("--output-path", output, "--features", network)
    assert len(decoded) == len(set(decoded)) == 20
    write_experiment(output, MIXED, "other/explanation", seed=2000)
    decoded.clear(), asked.clear()
    evaluate("--output-path", output, "--exp-name", "exp", "other", "--features", network)
    assert len(decoded) == len(set(decoded)) == 20  # its counterfactuals, and the originals that they are compared with
    assert len(asked) == 7 + 10  # features of those that flipped, and distances


def test_evaluate_gives_the_transfer_of_the_script(output, network):
    atomic.write_yaml(
        output / "Results/exp/config.yaml",
        {"flags": {"dataset": "Folder", "label_query": 0, "label_target": 1}, "weights": {}, "classes": None},
    )
    for index, folder in enumerate(MIXED):
        record = read_record(write_record(output, index, folder))
        info = counterfactual(output, index, folder).parents[1] / f"Info/{index:07d}.txt"
        info.parent.mkdir(exist_ok=True)
        info.write_text(record.info("explanation"))
    other = write_classifier(network.with_name("other.pt"), seed=3)
    evaluate("--output-path", output, "--unseen", network, other)
    words = ["--output-path", output, "--exp-name", "exp", "--device", "cpu", "--json", output / "out.json"]
    assert compute.run("transfer", [*map(str, words), "--classifier", str(network), str(other)]) == 0
    recorded = json.loads((output / "out.json").read_text())
    found = figures(output / "Results/exp/evaluation")
    for name, wanted in {network.name: recorded["classifiers"][str(network)], "pooled": recorded["pooled"]}.items():
        assert (found[f"transfer_{name}"]["value"], found[f"transfer_{name}"]["n"]) == (wanted["share"], wanted["n"])
    assert recorded["pooled"]["n"] > 0


def test_evaluate_finds_the_distances_of_features_that_a_hook_finds(output, network):
    evaluate("--output-path", output, "--features", network)
    found = figures(output / "Results/exp/evaluation")
    name = "small-4_features_of_toy.pt"
    assert found[f"frechet_{name}"]["name"] == "Frechet distance (small-4 features of toy.pt)"
    assert found[f"frechet_{name}"]["value"] > 0 and found[f"split_frechet_{name}"]["value"] > 0
    assert not any("FID" in figure["name"] for figure in found.values())
    assert "fewer pictures than the 16 features" in found[f"frechet_{name}"]["notes"]


def test_the_features_of_a_network_are_what_its_last_layer_sees(network):
    images = torch.rand(2, 3, SIDE, SIDE)
    classifier, seen = load_classifier(network), load_features(network)(images)
    assert seen.shape == (2, 16)
    torch.testing.assert_close(classifier.network.head(seen), classifier(images))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_figure_depends_on_the_batch(batch_size, output, network, own_cache):
    found = []
    for size in (batch_size, 32):
        evaluate("--output-path", output, "--features", network, "--batch-size", size)
        found.append({key: figure["value"] or 0 for key, figure in figures(output / "Results/exp/evaluation").items()})
        shutil.rmtree(own_cache)
    assert found[0].keys() == found[1].keys() and found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-6)


def test_experiments_are_compared_on_the_pictures_that_both_explained(tmp_path, network):
    write_experiment(tmp_path, ["CC/CCF"] * 12, "a/explanation")
    write_experiment(tmp_path, ["CC/CCF"] * 9 + ["CC/ICF"] * 3, "b/explanation", seed=2000)
    evaluate("--output-path", tmp_path, "--exp-name", "a", "b", "--features", network)
    written = metrics(tmp_path / "Results/evaluation/a+b")
    differences = {d["key"]: d for d in written["differences"]}
    values = [experiment["figures"]["l1"]["value"] for experiment in written["experiments"]]
    assert differences["l1"]["value"] == pytest.approx(values[1] - values[0])
    assert differences["l1"]["low"] < differences["l1"]["value"] < differences["l1"]["high"]
    assert (differences["l1"]["first"], differences["l1"]["second"]) == ("a/explanation", "b/explanation")
    assert differences["flip_rate"]["value"] == pytest.approx(-0.25) and differences["flip_rate"]["n"] == 12
    assert differences["frechet_small-4_features_of_toy.pt"]["n"] == 9


def test_identical_experiments_do_not_differ(tmp_path, network):
    for name in ("a", "b"):
        write_experiment(tmp_path, ["CC/CCF"] * 9, f"{name}/explanation")
    evaluate("--output-path", tmp_path, "--exp-name", "a", "b", "--features", network)
    differences = metrics(tmp_path / "Results/evaluation/a+b")["differences"]
    assert len(differences) == 5 and all((d["low"], d["value"], d["high"]) == (0, 0, 0) for d in differences)


def test_the_tables_hold_every_figure_and_every_picture(output):
    evaluate("--output-path", output, "--evaluation-path", output / "elsewhere")
    place = output / "elsewhere"
    rows = table(place / "metrics.csv")
    assert [row["name"] for row in rows] == [f"{i:07d}.png" for i in range(10)]
    assert all(0 < float(row["l1"]) < 1 and row["experiment"] == "exp/explanation" for row in rows)
    assert sum(row["flipped"] == "True" for row in rows) == 7
    markdown, latex = ((place / name).read_text() for name in ("table.md", "table.tex"))
    for name in ("FR ↑", "l1 ↓", "l2 ↓", "l∞ ↓"):
        assert f"| {name} |" in markdown
    assert r"l$_\infty$ $\downarrow$" in latex and r"0.7000 $\pm$ " in latex
    assert len({line.count("&") for line in latex.splitlines() if "&" in line}) == 1
    assert re.search(r"\| FR ↑ \| 0\.7000 \[0\.\d+, 0\.\d+\] \| CC\+IC, CCF\+ICF \| 10 \|", markdown)
    assert (place / "report.html").is_file()
    details = json.loads((place / "metrics.json").read_text())["details"]
    assert details["seed"] == 4 and details["versions"]["torch"] == package_version("torch")


def test_evaluate_reads_what_main_wrote_with_its_classifier_and_records(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    workshop.run(label_query="boot", label_target="coat")
    evaluate("--output-path", workshop.output)
    place = workshop.results() / "evaluation"
    found = figures(place)
    (row, *others), (recorded, *_) = table(place / "metrics.csv"), table(workshop.results() / "results.csv")
    assert found["cout"]["n"] == sum(picture["folder"].startswith("CC") for picture in (row, *others))
    assert found["mask_area"]["n"] == 2
    assert row["file"] == recorded["file"] == "boot/000.png" and row["target"] == recorded["target"]
    assert float(row["cf_target_prob"]) == float(recorded["ce_target_prob"])
    assert float(row["l1"]) == pytest.approx(float(recorded["ce_l1"]), abs=1e-3)

    other = write_classifier(tmp_path / "other.pt", seed=9)
    with pytest.raises(ValueError, match="^classifier_path .*is not the file that exp/explanation explains"):
        evaluate("--output-path", workshop.output, "--classifier-path", other)
    evaluate("--output-path", workshop.output, "--unseen", other)
    assert "transfer_other.pt" in figures(place)
    with pytest.raises(ValueError, match="^unseen .*is the classifier that was attacked"):
        evaluate("--output-path", workshop.output, "--unseen", workshop.classifier)
    shutil.copy(other, workshop.classifier)
    evaluate("--output-path", workshop.output)
    assert "is not the file any more that the run explained" in capsys.readouterr().err and "cout" not in figures(place)
    workshop.classifier.unlink()
    evaluate("--output-path", workshop.output)
    assert "no COUT, because the run's classifier" in capsys.readouterr().err and "cout" not in figures(place)


def script(name: str, output: Path, *words) -> dict:
    """The figures of one of the original's scripts."""
    where = ["--output-path", str(output), "--device", "cpu", "--json", str(output / "out.json")]
    compute.run(name, [*where, *map(str, words)])
    return json.loads((output / "out.json").read_text())["figures"]


@pytest.mark.slow
def test_evaluate_gives_the_fid_and_the_sfid_of_the_scripts(tmp_path, inception_file):
    write_experiment(tmp_path, ["CC/CCF"] * 5 + ["IC/CCF", "CC/ICF"])
    words = ["--exp-name", "exp", "--inception-weights", inception_file]
    evaluate("--output-path", tmp_path, *words)
    found = figures(tmp_path / "Results/exp/evaluation")
    fid, sfid = (script("FID", tmp_path, *words, "--splits", splits) for splits in (0, 10))
    assert found["fid"]["value"] == pytest.approx(fid["fid"], rel=1e-6)
    assert found["sfid"]["value"] == pytest.approx(sfid["sfid"], rel=1e-6)
    assert "fewer than 2048 pictures" in found["fid"]["notes"][0]


def test_the_diversity_of_several_experiments_is_that_of_the_script(tmp_path, backbone_file):
    for seed in (1, 2, 3):
        write_experiment(tmp_path, ["CC/CCF"] * 2 + ["IC/CCF"], f"run-{seed}/explanation", seed=1000 * seed)
    names = [f"run-{seed}" for seed in (1, 2, 3)]
    evaluate("--output-path", tmp_path, "--exp-name", *names, "--lpips-backbone", backbone_file)
    found = figures(tmp_path / "Results/evaluation/run-1+run-2+run-3")["lpips"]
    runs = ["--exp-pattern", "run-*/explanation", "--exp-values", 1, 2, 3, "--lpips-backbone", backbone_file]
    assert found["value"] == pytest.approx(script("LPIPS", tmp_path, *runs)["lpips"], rel=1e-5)
    assert found["n"] == 3 and "in all 3 experiments" in found["population"]


def test_the_flags_of_evaluate_are_these():
    assert to_dict(EvaluateConfig()) == {
        "output_path": "results",
        "exp_name": ("exp",),
        "allow_partial": False,
        "evaluation_path": "",
        "cache_path": "",
        "inception_weights": "",
        "vggface2_weights": "",
        "simsiam_weights": "",
        "oracle_path": "",
        "celeba_path": "",
        "lpips_backbone": "",
        "features": (),
        "features_arch": "",
        "unseen": (),
        "unseen_arch": "",
        "classifier": "",
        "classifier_path": "",
        "classifier_arch": "",
        "classifier_args": "",
        "classifier_mean": "",
        "classifier_std": "",
        "classifier_size": 0,
        "classifier_channels": 0,
        "dataset": "",
        "query_label": -1,
        "target_label": -1,
        "denoised_validity": False,
        "device": "auto",
        "gpu": 0,
        "num_workers": 2,
        "batch_size": 32,
        "seed": 4,
    }
