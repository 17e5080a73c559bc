"""The result folder: whole files under DiME's names, one of each picture, or none."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.runs.layout import CONTENTS, FOLDERS, ResultFolder
from ace_counterfactuals.core.runs.recording import draw_pictures, make_record
from ace_counterfactuals.core.runs.records import KINDS, Skipped
from tests.support.toys import tree


def a_record(explanation, i=0, label=None, index=3, flips=None):
    label = explanation.prediction[i].item() if label is None else label
    made = make_record(explanation, i, index=index, file="boot/a.png", label=label)
    if flips is None:
        return made
    outcomes = {kind: replace(outcome, success=flips) for kind, outcome in made.outcomes.items()}
    return replace(made, outcomes=outcomes)


def test_all_32_leaf_folders_exist_even_when_empty(results):
    leaves = [results.root / kind / f / content for kind in KINDS for f in FOLDERS for content in CONTENTS]
    assert len(set(leaves)) == 32 and all(leaf.is_dir() for leaf in leaves)
    assert all((results.output / "Original" / name).is_dir() for name in ("Correct", "Incorrect"))


def test_creating_the_folder_again_loses_nothing(results):
    (results.root / "pre-explanation/CC/CCF/CF/x.png").write_text("here")
    results.create()
    assert (results.root / "pre-explanation/CC/CCF/CF/x.png").read_text() == "here"


def test_a_picture_is_nine_files_and_a_record(results, explanation):
    results.write(a_record(explanation, flips=True), draw_pictures(explanation, 0))
    files = {name.removeprefix("Results/exp/") for name in tree(results.output)}
    kinds = {
        f"{kind}/CC/CCF/{content}/0000003.{'txt' if content == 'Info' else 'png'}"
        for kind in KINDS
        for content in CONTENTS
    }
    assert files == kinds | {"Original/Correct/0000003.png", "records/0000003.json"}


def test_the_record_is_written_last(results, explanation, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (written.append(new), replace(old, new)))
    results.write(a_record(explanation), draw_pictures(explanation, 0))
    assert [path.parent.name == "records" for path in written] == [False] * (len(written) - 1) + [True]


def test_the_stored_pictures_are_the_rounded_ones(results, explanation):
    record = a_record(explanation)
    results.write(record, draw_pictures(explanation, 0))
    shown = results.pictures_of(record)
    for name, picture in (
        ("original", explanation.image),
        ("pre-explanation", explanation.pre_explanation),
        ("explanation", explanation.counterfactual),
    ):
        with Image.open(shown[name]) as stored:
            levels = torch.from_numpy(np.array(stored)).permute(2, 0, 1).double()
        assert (levels / 255 - picture[0]).abs().max() <= 0.5 / 255 + 1e-6


def test_an_original_comes_back_bit_for_bit(results, explanation):
    record = a_record(explanation)
    results.write(record, draw_pictures(explanation, 0))
    with Image.open(results.pictures_of(record)["original"]) as stored:
        assert torch.equal(torch.from_numpy(np.array(stored)).permute(2, 0, 1).float() / 255, explanation.image[0])


def test_what_was_kept_has_the_originals_bytes_in_the_counterfactual(results, explanation):
    record = a_record(explanation)
    results.write(record, draw_pictures(explanation, 0))
    shown = results.pictures_of(record)
    original, counterfactual = (np.array(Image.open(shown[name])) for name in ("original", "explanation"))
    keep = explanation.keep[0, 0].numpy()
    assert keep.any() and (original[keep] == counterfactual[keep]).all()


def test_the_masks_are_each_kinds_own_and_undilated(results, explanation):
    record = a_record(explanation)
    results.write(record, draw_pictures(explanation, 0))
    for kind, picture in (("pre-explanation", "pre_explanation"), ("explanation", "counterfactual")):
        change = (explanation.image[0] - getattr(explanation, picture)[0]).abs().sum(0)
        with Image.open(results.path(kind, record.folder(kind), "SM", 3)) as mask:
            assert mask.mode == "L"
            assert np.abs(np.array(mask) / 255 - (change / change.max()).numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_picture_of_another_range_is_cut_and_not_wrapped():
    levels = np.array(to_pil(torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1]).view(1, 1, 5)))
    assert levels.tolist() == [[0, 0, 128, 255, 255]]


def test_without_pictures_the_info_and_the_record_remain(results, explanation):
    record = a_record(explanation, flips=True)
    results.write(record, None)
    assert {Path(name).suffix for name in tree(results.output)} == {".txt", ".json"}
    assert results.pictures_of(record) is None
    assert list(results.read()[0]) == [3]


def test_a_picture_that_changes_folder_leaves_nothing_in_the_old_one(results, explanation):
    for label, flips in ((1, True), (1, False), (0, False), (0, True)):
        results.write(a_record(explanation, label=label, flips=flips), draw_pictures(explanation, 0))
        assert len(tree(results.output)) == 10


def test_two_experiments_share_the_originals(results, explanation):
    other = ResultFolder(results.output, "other")
    other.create()
    for folder in (results, other):
        folder.write(a_record(explanation), draw_pictures(explanation, 0))
    assert len(tree(results.output / "Original")) == 1


def test_an_experiment_finds_an_original_that_another_classifier_moved(results, explanation):
    mine, theirs = a_record(explanation, label=1), a_record(explanation, label=0)
    results.write(mine, draw_pictures(explanation, 0))
    other = ResultFolder(results.output, "other")
    other.create()
    other.write(theirs, draw_pictures(explanation, 0))
    assert results.pictures_of(mine)["original"] == other.pictures_of(theirs)["original"]


def test_two_experiments_that_disagree_in_lockstep_never_delete_a_strangers_original(results, explanation, monkeypatch):
    """Each publishes its own before the other moves: whatever their order, every original is there."""
    other = ResultFolder(results.output, "other")
    other.create()
    settle, waiting = ResultFolder.settle_original, []
    monkeypatch.setattr(ResultFolder, "settle_original", lambda *given: waiting.append(given))
    for index in range(4):
        for folder, label in ((results, 1), (other, 0)):
            folder.write(a_record(explanation, label=label, index=index), draw_pictures(explanation, 0))
    for given in (*waiting[::2], *waiting[1::2]):
        settle(*given)
    kept = [path.name for side in (True, False) for path in results.original(0, side).parent.iterdir()]
    assert sorted(kept) == [f"{index:07d}.png" for index in range(4)]


@pytest.mark.parametrize("damaged", [True, False])
def test_an_original_that_is_damaged_is_written_again_wherever_it_lies(results, explanation, damaged):
    results.write(a_record(explanation, label=1), draw_pictures(explanation, 0))
    place = next(path for path in results.originals(3) if path.exists())
    data = place.read_bytes()
    place.write_bytes(data[:-20])
    results.write(a_record(explanation, label=int(damaged)), draw_pictures(explanation, 0))
    assert list(tree(results.output / "Original").values()) == [data]


@pytest.mark.parametrize("correct", [True, False])
def test_another_picture_under_the_same_name_is_refused(results, explanation, correct):
    """The output folder holds another data set, or another size."""
    path = results.original(3, correct)
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(ValueError, match="0000003.png is another picture than boot/a.png; .* another output folder"):
        results.write(a_record(explanation), draw_pictures(explanation, 0))
    assert list(tree(results.output)) == [path.relative_to(results.output).as_posix()]


def test_what_is_read_back_is_what_was_written_in_order(results, explanation):
    records = [a_record(explanation, i, index=index) for i, index in ((1, 12), (0, 3))]
    for i, record in zip((1, 0), records, strict=True):
        results.write(record, draw_pictures(explanation, i))
    results.write_skipped(5, "boot/b.png", "cut short")
    finished, skipped = results.read()
    bare = [(index, replace(record, files={})) for index, record in finished.items()]
    assert bare == [(3, records[1]), (12, records[0])] and all(record.files for record in finished.values())
    assert skipped == {5: Skipped(5, "boot/b.png", "cut short")}


def test_a_record_takes_the_place_of_a_skipped_one(results, explanation):
    results.write_skipped(3, "boot/a.png", "cut short")
    results.write(a_record(explanation), draw_pictures(explanation, 0))
    assert [list(part) for part in results.read()] == [[3], []]


def fail_when(monkeypatch, name):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    fail_when(monkeypatch, call)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(path, "new")
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(tmp_path / "a.txt", "new")
    assert tree(tmp_path) == {}


def test_a_picture_that_could_not_be_written_whole_is_not_finished(results, explanation, monkeypatch):
    fail_when(monkeypatch, "fsync")
    with pytest.raises(OSError, match="No space"):
        results.write(a_record(explanation), draw_pictures(explanation, 0))
    assert tree(results.output) == {}
    assert results.read() == ({}, {})


def test_tables_are_written_with_plain_line_ends_and_quoted_where_needed(tmp_path):
    atomic.write_csv(tmp_path / "t.csv", [{"a": 'x,"y"', "b": None}], ["a", "b"])
    assert (tmp_path / "t.csv").read_bytes() == b'a,b\n"x,""y""",\n'
