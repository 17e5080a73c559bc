"""The original's evaluation scripts: its command lines, its figures, and what goes wrong in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ace_counterfactuals.core.cli import compute
from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import save_classifier
from tests.support.paths import GOLDEN

FACES = GOLDEN / "eval/celeba"
SWAP = ["--output-path", str(FACES), "--exp-name", "exp/swap", "--device", "cpu"]


def run(script: str, *words) -> int:
    return compute.run(script.removeprefix("compute_"), [str(word) for word in words])


def failure(script: str, *words, capsys) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: run(script, *words))
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert ended.value.code == 2 and len(lines) == 1
    return lines[0]


def of_two(folder: Path) -> list:
    """``SWAP`` of two faces alone, copied to ``folder``, for networks that take their time."""
    for kind in ("Original/Correct", "Results/exp/swap/CC/CCF/CF"):
        (folder / kind).mkdir(parents=True)
        for name in ("0000002.png", "0000004.png"):
            shutil.copy(FACES / kind / name, folder / kind / name)
    return ["--output-path", folder, *SWAP[2:]]


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    """Function: outputs -> the file of a small classifier of so many classes."""
    folder = tmp_path_factory.mktemp("classifiers")

    def write(outputs: int) -> Path:
        path = folder / f"{outputs}.pt"
        torch.manual_seed(0)
        network = build_classifier("small-4", outputs).eval()
        names = [str(i) for i in range(outputs)]
        half = [0.5] * 3
        save_classifier(path, network, arch="small-4", class_names=names, mean=half, std=half, image_size=64)
        return path

    return write


@pytest.mark.parametrize("batch_size", [1, 4])
def test_cout_does_not_depend_on_the_batch(batch_size, classifier_file, capsys, tmp_path):
    words = [*SWAP, "--weights-path", classifier_file(2), "--dataset", "CelebA", "--query-label", "31"]
    values = []
    for size in (batch_size, 10):
        run("compute_COUT", *words, "--batch-size", size, "--json", tmp_path / "out.json")
        values.append(json.loads((tmp_path / "out.json").read_text())["figures"]["cout"])
    assert values[0] == pytest.approx(values[1], abs=1e-6) and values[0] != 0


def test_cout_of_more_classes_goes_from_the_query_to_the_target(classifier_file, tmp_path):
    values = []
    for query, target in ((0, 2), (2, 0)):
        words = [*SWAP, "--weights-path", classifier_file(3), "--dataset", "Folder", "--json", tmp_path / "out.json"]
        run("compute_COUT", *words, "--query-label", query, "--target-label", target)
        values.append(json.loads((tmp_path / "out.json").read_text())["figures"])
    assert values[0]["cout"] == pytest.approx(-values[1]["cout"]) and values[0]["cout"] != 0
    assert abs(values[0]["cout_normalised"]) < abs(values[0]["cout"])


def test_cout_without_classes_says_which_flag_is_missing(classifier_file, capsys):
    words = [*SWAP, "--weights-path", classifier_file(3), "--dataset", "Folder", "--query-label", "1"]
    assert "--target-label -1: " in failure("compute_COUT", *words, capsys=capsys)


def test_cout_names_its_own_flags(capsys):
    assert "weights" in failure("compute_COUT", *SWAP, "--weights-path", "none.pth", capsys=capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, dataset, query, target",
    [
        ("steex_hq.tar", "CelebAHQ", 31, 1),
        ("steex_bdd.tar", "BDD100k", 0, 1),
        ("resnet50.pth", "ImageNet", 1, 2),
    ],
)
def test_cout_runs_with_the_classifier_of_every_data_set(file, dataset, query, target, golden_weights, tmp_path):
    words = [*of_two(tmp_path), "--weights-path", golden_weights(file), "--dataset", dataset]
    words += ["--json", tmp_path / "out.json"]
    run("compute_COUT", *words, "--query-label", query, "--target-label", target)
    assert -1.02 < json.loads((tmp_path / "out.json").read_text())["figures"]["cout"] < 1.02


def test_mnac_and_cd_take_the_oracle_of_celebahq_and_refuse_it_for_celeba(golden_weights, capsys, tmp_path):
    words = [*of_two(tmp_path), "--oracle-path", golden_weights("oracle_hq.tar"), "--dataset", "CelebAHQ"]
    assert run("compute_MNAC", *words) == 0
    assert run("compute_CD", *words, "--celeba-path", GOLDEN / "data/celebahq", "--query-label", 31) == 0
    assert "CD Result: " in capsys.readouterr().out
    assert "is CelebA-HQ's oracle" in failure("compute_MNAC", *words[:-1], "CelebA", capsys=capsys)


def test_no_picture_gives_no_figure_and_no_error(classifier_file, capsys, tmp_path):
    shutil.copytree(FACES / "Original", tmp_path / "Original")
    (tmp_path / "Results/exp/explanation/CC/CCF/CF").mkdir(parents=True)
    words = ["--output-path", tmp_path, "--exp-name", "exp", "--device", "cpu", "--json", tmp_path / "out.json"]
    run("compute_COUT", *words, "--weights-path", classifier_file(2), "--query-label", 31)
    assert "EVAL [COUT: n/a (0 images)]" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["figures"]["cout"] is None
    run("FID", *words)
    assert "n/a (0 images)" in capsys.readouterr().out


def test_an_unknown_experiment_and_a_missing_folder_are_one_line(capsys):
    message = failure("compute_MNAC", "--output-path", FACES, "--exp-name", "swop", capsys=capsys)
    assert message.endswith("there are: exp/swap")
    message = failure("compute_MNAC", *SWAP, "--json", "no/such/out.json", capsys=capsys)
    assert message == "error: --json no/such/out.json: its folder does not exist"


def test_cd_asks_for_the_attribute(capsys):
    words = [*SWAP, "--celeba-path", GOLDEN / "data/celeba", "--oracle-path", "x"]
    assert "--query-label -1: wanted the explained attribute, 0 to 39" in failure("compute_CD", *words, capsys=capsys)


def test_the_diversity_of_no_pictures_is_not_available(capsys, tmp_path):
    shutil.copytree(FACES / "Original", tmp_path / "Original")
    for seed in (1, 2):
        (tmp_path / f"Results/run-{seed}/explanation/CC/CCF/CF").mkdir(parents=True)
    where = ["--output-path", tmp_path, "--device", "cpu"]
    assert run("LPIPS", *where, "--exp-pattern", "run-*", "--exp-values", 1, 2) == 0
    assert "LPIPS: n/a (0 images)" in capsys.readouterr().out
