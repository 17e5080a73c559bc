"""sheet.png: one picture to look at, for pictures of any size and experiments of any length."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.runs.layout import CONTENTS, FOLDERS, ResultFolder
from ace_counterfactuals.core.runs.records import KINDS, Outcome, Record
from ace_counterfactuals.core.runs.sheet import BAD, GOOD, LIMIT, caption, choose, draw_sheet, fit
from tests.support.toys import tree


def outcome(**changes) -> Outcome:
    return replace(
        Outcome(
            prediction=1,
            success=True,
            success5=True,
            changed=True,
            changed5=False,
            prob=0.9,
            source_prob=0.1,
            target_prob=0.9,
            l1=0.1,
            l_inf=0.5,
        ),
        **changes,
    )


def record(index=0, l1=0.1, **changes) -> Record:
    made = Record(
        index=index,
        file="a.png",
        binary=True,
        label=0,
        prediction=0,
        target=1,
        correct5=True,
        source_prob=0.75,
        target_prob=0.25,
        mask_area=0.3,
        outcomes={kind: outcome(l1=l1) for kind in KINDS},
    )
    return replace(made, **changes)


@pytest.fixture
def experiment(tmp_path):
    """Function: (size, count) -> a result folder of so many pictures, and their records."""

    def make(size=(8, 8), count=3):
        results = ResultFolder(tmp_path, "an experiment")
        results.create()
        records = [record(i, l1=i / 100) for i in range(count)]
        for made in records:
            paths = [results.original(made.index, True)]
            paths += [results.path(kind, made.folder(kind), "CF", made.index) for kind in KINDS]
            for path in paths:
                Image.new("RGB", size, (200, 30, 90)).save(path)
            Image.new("L", size, 255).save(results.path(KINDS[0], made.folder(KINDS[0]), "SM", made.index))
        return results, records

    return make


def drawn(results, records, names=("cat", "dog")):
    path = results.root / "sheet.png"
    draw_sheet(results, records, names, path)
    with Image.open(path) as sheet:
        return np.array(sheet.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 32), (100, 100), (300, 300), (64, 32), (512, 256), (20, 90)])
def test_a_sheet_is_drawn_for_pictures_of_any_size_and_shape(experiment, size):
    sheet = drawn(*experiment(size, 3))
    assert (sheet == (200, 30, 90)).all(2).sum() >= 3 * 3 * 40 * 40
    assert sheet.shape[0] < 2000 and sheet.shape[1] < 4000


def test_small_pictures_are_enlarged_without_blur(experiment):
    colours = {tuple(c) for c in drawn(*experiment((8, 8), 1))[60:180, 10:130].reshape(-1, 3)}
    assert colours == {(200, 30, 90)}


@pytest.mark.parametrize("count", [1, 2, 5, LIMIT, LIMIT + 10])
def test_an_experiment_of_any_length_gives_one_sheet(experiment, count):
    assert drawn(*experiment(count=count)).shape[0] < 2000


def test_the_most_changed_come_first_and_of_many_the_least_changed_follow():
    records = [record(i, l1=i) for i in range(100)]
    shown = [made.index for made in choose(records)]
    assert shown == [*range(99, 87, -1), *range(11, -1, -1)]
    assert [made.index for made in choose(records[:3])] == [2, 1, 0]


def test_equal_changes_are_ordered_by_index():
    assert [made.index for made in choose([record(2), record(0), record(1)])] == [0, 1, 2]


def test_pictures_that_were_not_saved_are_left_out(experiment):
    results, records = experiment(count=3)
    results.path("explanation", "CC/CCF", "CF", 1).unlink()
    drawn(results, records)


def test_an_experiment_without_pictures_has_no_sheet(experiment):
    results, records = experiment(count=1)
    for path in results.output.rglob("*.png"):
        path.unlink()
    draw_sheet(results, records, None, results.root / "sheet.png")
    assert tree(results.output) == {}


def test_the_captions_say_what_is_predicted_and_how_surely():
    made = record()
    names = ("cat, a pet", "dog")
    assert caption(made, "original", names)[0] == "cat 75%"
    assert caption(made, "explanation", names) == ("dog 90%", GOOD)
    assert caption(made, "mask", names)[0] == "30% may change"
    assert caption(made, "original", None)[0] == "0 75%"


def test_a_class_that_was_neither_there_nor_wanted_has_its_confidence_too():
    failed = record(outcomes={kind: outcome(prediction=2, success=False, prob=0.4) for kind in KINDS})
    assert caption(failed, "explanation", ("cat", "dog", "owl")) == ("owl 40%", BAD)


def test_a_name_too_long_for_its_column_is_cut():
    class Monospaced:
        def textlength(self, text, font):
            return 10 * len(text)

    assert fit(Monospaced(), "abcdefgh", 80, None) == "abcdefgh"
    assert fit(Monospaced(), "abcdefghi", 80, None) == "abcdefg…"


def test_every_folder_of_the_layout_can_hold_what_the_sheet_shows():
    assert len(FOLDERS) * len(CONTENTS) * len(KINDS) == 32
