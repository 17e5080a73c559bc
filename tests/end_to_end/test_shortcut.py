"""The planted shortcut: the mark, how it is looked for, and the benchmark's figures."""

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.models.classifiers import load_classifier
from benchmarks import mark, shortcut
from benchmarks.shortcut import Cell, compare, draw, figures, table
from scripts import plant_mark
from tests.support.paths import ROOT


def black(count: int = 3) -> torch.Tensor:
    return torch.zeros(count, 3, 32, 32)


def cell(marked: bool, count: int = 3) -> Cell:
    image = mark.plant(black(count)) if marked else black(count)
    return Cell(marked, image, list(range(count)), target=1)


def test_a_planted_mark_is_found_and_leaves_the_original_alone():
    image = black()
    marked = mark.plant(image)
    assert mark.has_mark(marked).all() and not mark.has_mark(image).any()
    assert mark.level(marked).tolist() == pytest.approx([mark.LEVEL] * 3)
    assert (marked != image).sum() == 3 * 3 * 16


def test_the_mark_counts_as_gone_at_half_its_level():
    marked = mark.plant(black())
    assert not mark.has_mark(marked * 0.49).any() and mark.has_mark(marked * 0.51).all()


def test_the_share_of_the_change_is_one_where_only_the_mark_changed_and_zero_where_nothing_did():
    image = black(2)
    changed = mark.plant(image)
    assert mark.share_of_change(image, changed).tolist() == [1, 1]
    assert mark.share_of_change(image, image).tolist() == [0, 0]
    changed[1, :, 10:14, 10:14] = mark.LEVEL
    assert mark.share_of_change(image, changed)[1].item() == pytest.approx(0.5)


def test_the_interval_of_a_ratio_holds_it_and_narrows_with_more_pictures():
    rng = np.random.default_rng(0)
    a, b = 0.4 + 0.1 * rng.standard_normal(400), 0.1 + 0.02 * rng.standard_normal(400)
    low, high = mark.ratio_interval(a, b, seed=0)
    few_low, few_high = mark.ratio_interval(a[:10], b[:10], seed=0)
    assert low < 4 < high < 4.3 and few_high - few_low > high - low
    assert mark.ratio_interval(a, a, seed=0) == (1, 1)


def test_figures_say_how_often_the_mark_was_removed_and_added():
    for marked in (True, False):
        asked = cell(marked)
        changed = asked.image.clone()
        changed[0] = (black() if marked else mark.plant(black()))[0]
        row = figures(asked, changed, lambda image: torch.tensor([[0.0, 1.0]]).expand(len(image), 2))
        assert row["mark changed"] == pytest.approx(1 / 3) and row["flip"] == 1
        assert row["share"] == pytest.approx(1 / 3)


def test_the_table_compares_with_the_control_and_the_picture_is_drawn(tmp_path):
    found, rows = {}, []
    for marked in (True, False):
        for name, moved in (("tainted", 0.2), ("control", 0.05)):
            asked = cell(marked)
            changed = asked.image.clone()
            changed[..., 2:6, 2:6] += -moved if marked else moved
            changed[..., 20:24, 20:24] = 0.5
            found[marked, name] = (asked.image, changed.clamp(0, 1))
            rows.append({"classifier": name, **figures(asked, changed, lambda image: torch.eye(2)[[1] * len(image)])})
    ratios = compare(found, seed=0)
    assert [row["mark"] for row in ratios] == ["with", "without", "both"]
    assert ratios[2]["ratio"] == pytest.approx(0.2 / 0.7 / (0.05 / 0.55)) and ratios[2]["low"] > 3
    text = table(rows, ratios)
    assert "| tainted | with | 3 | 1.00 (0.44 to 1.00) | 0.286 | 0.30 to 0.10 |" in text
    assert "mark both: 3.1 times the control's share" in text
    draw(found, tmp_path / "shortcut.png")
    with Image.open(tmp_path / "shortcut.png") as picture:
        assert picture.size[0] > 1000


def test_marks_are_planted_by_class_in_the_tainted_copy_and_evenly_in_the_control(tmp_path, monkeypatch):
    for name in mark.CLASSES:
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(60):
            Image.new("RGB", (32, 32)).save(tmp_path / "in" / name / f"{i}.png")
    monkeypatch.setattr("sys.argv", ["plant_mark.py", str(tmp_path / "in"), str(tmp_path / "out")])
    plant_mark.main()
    for copy, wanted in (("tainted", {"coat": 0.95, "pullover": 0.05}), ("control", {"coat": 0.5, "pullover": 0.5})):
        images = open_dataset("Folder", tmp_path / "out" / copy, image_size=32)
        marked = mark.has_mark(torch.stack([sample.image for sample in images])).double()
        labels = torch.tensor([entry.label for entry in images.records])
        for label, name in enumerate(images.class_names):
            assert marked[labels == label].mean() == pytest.approx(wanted[name], abs=0.2)


def test_the_classifiers_of_the_shortcut_differ_in_whether_the_mark_moves_them():
    images = open_dataset("Folder", ROOT / "demo/pictures", image_size=32)
    moves = {}
    for name in shortcut.CLASSIFIERS:
        classifier = load_classifier(shortcut.NETWORKS / f"{name}.pt")
        asked = shortcut.choose(images, [classifier], marked=False, count=32)
        with torch.no_grad():
            moves[name] = (classifier(mark.plant(asked.image)) - classifier(asked.image))[:, asked.target].mean()
    assert moves["tainted"] > 10 * abs(moves["control"])


@pytest.mark.slow
def test_the_shortcut_benchmark_runs(tmp_path):
    shortcut.main(["--output", str(tmp_path), "--photographs", "2", "--iterations", "2"])
    assert {path.name for path in tmp_path.iterdir()} == {f"shortcut.{kind}" for kind in ("csv", "md", "png")}
    assert "mark both:" in (tmp_path / "shortcut.md").read_text()
