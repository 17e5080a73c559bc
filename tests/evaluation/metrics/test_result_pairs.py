"""A result folder read back: which pairs, from where, and what is refused."""

import shutil

import pytest
from PIL import Image

from ace_counterfactuals.core.evaluation.metrics import flips
from ace_counterfactuals.core.evaluation.model import CORRECT, EVERY, FLIPPED
from ace_counterfactuals.core.runs.experiment import find_experiment, read_pairs
from ace_counterfactuals.core.runs.layout import FOLDERS


def draw(path, level: int = 0, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 0)).save(path)


@pytest.fixture
def output(tmp_path):
    """One picture in each of the four folders, 0 to 3, of the experiment exp, both kinds."""
    for index, folder in enumerate(FOLDERS):
        side = "Correct" if folder.startswith("CC") else "Incorrect"
        draw(tmp_path / f"Original/{side}/{index:07d}.png", index)
        for kind in ("explanation", "pre-explanation"):
            draw(tmp_path / f"Results/exp/{kind}/{folder}/CF/{index:07d}.png", 100 + index)
    return tmp_path


def names(pairs) -> list[int]:
    return [int(pair.name[:7]) for pair in pairs]


@pytest.mark.parametrize("population, expected", [(EVERY, [0, 1, 2, 3]), (FLIPPED, [0, 2]), (CORRECT, [0, 1])])
def test_a_population_is_a_choice_of_folders(output, population, expected):
    assert names(read_pairs(output, "exp/explanation", population.folders)) == expected


def test_the_flip_rate_is_the_share_that_reached_its_target(output):
    assert flips.measure(None, read_pairs(output, "exp/explanation"))[0].mean() == 0.5


def test_an_original_that_another_classifier_moved_is_found(output):
    shutil.move(output / "Original/Correct/0000000.png", output / "Original/Incorrect/0000000.png")
    assert read_pairs(output, "exp/explanation")[0].original == output / "Original/Incorrect/0000000.png"


def test_the_name_without_explanation_is_understood_and_said(output, notes):
    assert find_experiment(output, "exp") == output / "Results/exp/explanation"
    assert "exp/explanation" in notes.text


def test_an_unknown_experiment_names_those_there_are(output):
    with pytest.raises(ValueError, match="exp_name expo: no such experiment in .*; did you mean exp"):
        read_pairs(output, "expo")


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="^output_path .*no results"):
        read_pairs(tmp_path, "exp")


def test_a_counterfactual_without_original_is_named(output):
    (output / "Original/Correct/0000001.png").unlink()
    with pytest.raises(ValueError, match="1 counterfactuals have no original.*CC/ICF/CF/0000001.png"):
        read_pairs(output, "exp/explanation", FLIPPED.folders)


def test_a_name_in_two_folders_is_refused(output):
    draw(output / "Results/exp/explanation/IC/ICF/CF/0000000.png")
    with pytest.raises(ValueError, match="0000000.png is in both CC/CCF and IC/ICF"):
        read_pairs(output, "exp/explanation")


def test_an_experiment_with_empty_folders_has_no_pairs(output):
    for path in (output / "Results/exp/explanation").rglob("*.png"):
        path.unlink()
    assert read_pairs(output, "exp/explanation") == []
