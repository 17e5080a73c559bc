"""A folder of a stranger is evaluated: nothing outside it, or that no evaluation wrote, is changed or believed."""

import os
import shutil

import numpy as np
import pytest

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.evaluation.cache import Store
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.places import MARKER, open_cache
from ace_counterfactuals.core.evaluation.tables import TABLES
from tests.support.result_folders import evaluate, failure, figures, write_experiment
from tests.support.toys import tree, write_classifier

EVALUATION = "Results/exp/evaluation"
KEYS, ROWS = [bytes([1]) * 32], np.ones((1, 3), np.float32)


@pytest.fixture
def output(tmp_path):
    write_experiment(tmp_path / "out", ["CC/CCF", "CC/ICF", "IC/CCF"])
    return tmp_path / "out"


@pytest.fixture
def canary(tmp_path):
    folder = tmp_path / "canary"
    (folder / "report/data").mkdir(parents=True)
    for name in ("table.md", "about.js", "0-00.png", "report/data/measurements.csv"):
        (folder / name).write_text("theirs")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


@pytest.mark.parametrize("place", ["", "/report", "/report/sheets", "/report/data", "/report/masks"])
def test_evaluate_refuses_a_strangers_link_before_it_computes(place, output, canary, capsys):
    link = output / f"{EVALUATION}{place}"
    link.parent.mkdir(parents=True, exist_ok=True)
    if place:
        (output / EVALUATION / MARKER).write_text("")
    link.symlink_to(canary)
    message = failure(capsys, "--output-path", output)
    assert f"{link}: is a link to {canary}" in message and not (output / EVALUATION / "metrics.json").exists()


@pytest.mark.parametrize("name", [*TABLES, "report.html", "report/report.css", "report/data/about.js", MARKER])
def test_evaluate_writes_through_no_file_of_a_stranger_that_is_a_link(name, output, canary, capsys):
    evaluate("--output-path", output)
    (output / EVALUATION / name).unlink()
    (output / EVALUATION / name).symlink_to(canary / "table.md")
    assert f"{name}: is a link to {canary}" in failure(capsys, "--output-path", output)


@pytest.mark.parametrize("name", ["report/data/measurements.csv", "report.html", "metrics.csv", "report/masks/x"])
def test_evaluate_leaves_a_folder_that_a_stranger_or_the_user_filled(name, output, tmp_path, capsys):
    own = tmp_path / "myproj" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    message = failure(capsys, "--output-path", output, "--evaluation-path", tmp_path / "myproj")
    assert message.startswith("error: --evaluation-path ") and "did not write" in message
    assert tree(tmp_path / "myproj") == {name: b"mine"}


def test_evaluate_removes_no_file_that_a_stranger_put_beside_its_own(output, capsys):
    evaluate("--output-path", output)
    stray = output / EVALUATION / "report/data/measurements.csv"
    stray.write_text("mine")
    assert f"{stray}: was not written by evaluate.py" in failure(capsys, "--output-path", output)
    assert stray.read_text() == "mine"


def test_a_folder_with_other_files_of_a_stranger_is_written_to(output, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        evaluate("--output-path", output, "--evaluation-path", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine" and figures(tmp_path)["l1"]["n"] == 3


def test_an_evaluation_of_before_the_marker_is_no_strangers(output):
    evaluate("--output-path", output)
    before = tree(output / EVALUATION)
    (output / EVALUATION / MARKER).unlink()
    (output / EVALUATION / "report/sheets/.sheets.json").write_text("{}")
    evaluate("--output-path", output)
    assert tree(output / EVALUATION) == before


def test_a_cache_that_comes_with_a_strangers_folder_is_not_believed(output, tmp_path, own_cache):
    network = write_classifier(tmp_path / "toy.pt")
    words = ("--output-path", output, "--features", network)
    evaluate(*words)
    found = figures(output / EVALUATION)
    (forged := output / ".cache").mkdir()
    for path in own_cache.rglob("*.rows"):
        head, _, rows = path.read_bytes().partition(b"\n")
        assert head and rows
        (forged / path.name).write_bytes(head + b"\n" + bytes(len(rows)))
    shutil.rmtree(own_cache)
    before = tree(forged)
    evaluate(*words)
    assert figures(output / EVALUATION) == found and tree(forged) == before


def test_a_cache_in_the_folder_that_a_stranger_may_have_made_is_refused(output, capsys):
    message = failure(capsys, "--output-path", output, "--cache-path", output / ".cache")
    assert message.startswith("error: --cache-path ") and "lies in the result folder" in message


def test_thumbnails_that_come_with_a_strangers_folder_are_drawn_again(output):
    evaluate("--output-path", output)
    sheet = next((output / EVALUATION / "report/sheets").glob("counterfactual-*"))
    drawn = sheet.read_bytes()
    sheet.write_bytes(next(sheet.parent.glob("original-*")).read_bytes())
    evaluate("--output-path", output)
    assert sheet.read_bytes() == drawn


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_rows_are_not_written_to_what_a_stranger_put_in_their_place(kind, tmp_path, canary):
    guard.give(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    path = Store(tmp_path / "cache", "toy", {}).path
    if kind == "link":
        path.symlink_to(canary / "table.md")
    else:
        os.mkfifo(path)
    with pytest.raises(guard.Outside, match=path.name):
        Store(tmp_path / "cache", "toy", {}).add(KEYS, ROWS)


def test_without_a_cache_that_can_be_written_figures_are_computed_and_that_is_told_once(
    output, tmp_path, own_cache, monkeypatch, capsys
):
    network = write_classifier(tmp_path / "toy.pt")
    evaluate("--output-path", output, "--features", network)
    found = figures(output / EVALUATION)
    (tmp_path / "taken").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    capsys.readouterr()
    evaluate("--output-path", output, "--features", network)
    assert figures(output / EVALUATION) == found
    assert capsys.readouterr().err.count("nothing is kept in a cache, see --cache-path") == 1


def test_the_cache_lies_in_the_users_own_folder_and_in_no_strangers(output, own_cache):
    with open_cache(from_dict(EvaluateConfig, {"output_path": str(output)})) as cache:
        assert cache.parent == own_cache and cache.is_dir()


def test_a_picture_of_a_stranger_without_end_is_not_read(output, tmp_path, capsys):
    write_classifier(tmp_path / "unseen.pt")
    (picture, *_) = sorted(output.glob("Results/exp/explanation/CC/CCF/CF/*.png"))
    os.truncate(picture, 2**40)
    given = ["--dataset", "Folder", "--unseen", tmp_path / "unseen.pt"]
    message = failure(capsys, "--output-path", output, *given)
    assert f"{picture}: unreadable picture: is larger than" in message
