"""Runs on measurements: what is saved is in their units, too, and is refined again at full depth."""

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.cli.refine import main as refine
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.verify import verify
from tests.support.toys import SIDE, Workshop, tree

LOW, HIGH = -1000, 2000
RANGE = {"image_range": f"{LOW},{HIGH}"}


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path)
    rng = np.random.default_rng(0)
    for file in shop.data.rglob("*.png"):
        file.unlink()
        np.save(file.with_suffix(".npy"), rng.uniform(LOW, HIGH, (SIDE, SIDE)).astype(np.float32))
    return shop


def numbers(folder):
    return {path.stem: np.load(path) for path in sorted(folder.rglob("*.npy"))}


def test_originals_and_explanations_are_kept_in_their_units_beside_a_picture(shop):
    assert shop.run(**RANGE) == 0
    sources = {f"{i:07d}": np.load(path) for i, path in enumerate(sorted(shop.data.rglob("*.npy")))}
    originals, explained = numbers(shop.output / "Original"), numbers(shop.results() / "explanation")
    assert originals.keys() == explained.keys() == sources.keys() and numbers(shop.results("exp/pre-explanation")) == {}
    for name, values in explained.items():
        assert np.abs(originals[name] - sources[name]).max() < 0.01
        picture = next((shop.results() / "explanation").rglob(f"CF/{name}.png"))
        levels = np.asarray(Image.open(picture)) / 255
        assert np.abs(levels - (values - LOW) / (HIGH - LOW)).max() <= 0.5 / 255 + 1e-6
    assert verify(ResultFolder(shop.output, "exp")) == []


def test_files_of_numbers_that_are_lost_are_found_and_made_again(shop):
    shop.run(**RANGE)
    before = tree(shop.output)
    next((shop.results() / "explanation").rglob("*.npy")).unlink()
    assert [finding.reason.endswith("is missing") for finding in verify(ResultFolder(shop.output, "exp"))][0]
    for original in (shop.output / "Original").rglob("*.*"):
        original.unlink()
    shop.run(**RANGE)
    assert {name for name in before if name.endswith(".npy")} <= set(tree(shop.output))


def test_refined_again_with_the_same_settings_the_numbers_are_the_same(shop):
    shop.run(**RANGE, save_float=True, sampling_inpaint=0.1)
    assert refine(["--output_path", str(shop.output), "--sampling_inpaint", "0.1", "--device", "cpu"]) == 0
    again = numbers(next(shop.results().glob("all_filtered_*")))
    first = numbers(shop.results() / "explanation")
    assert again.keys() == first.keys()
    level = (HIGH - LOW) / 255  # the pre-explanation has 11 bits
    assert all(np.abs(again[name] - first[name]).max() < level / 4 for name in first)
    assert verify(ResultFolder(shop.output, f"exp/{next(shop.results().glob('all_filtered_*')).name}")) == []
