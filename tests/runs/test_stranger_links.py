"""A result folder of a stranger, in which links lead elsewhere: nothing is written, moved or deleted through them."""

import os
import shutil

import pytest

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.runs.begin import begin_anew
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.recording import draw_pictures, make_record
from ace_counterfactuals.core.runs.status import run_log
from ace_counterfactuals.core.runs.verify import Finding, move_aside
from tests.support.toys import tree


@pytest.fixture
def canary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("canary")
    for name in ("0000003.json", "0000003.png", "0000003.txt", "gate", "config.yaml", ".a.json.here-1.tmp"):
        (folder / name).write_text("theirs")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


def link(path, target):
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def write(results, explanation):
    record = make_record(explanation, 0, index=3, file="boot/a.png", label=0)
    results.write(record, draw_pictures(explanation, 0))


LINKED = ("Results", "Original", "Original/Correct", "Results/exp", "Results/exp/records", "Results/exp/explanation")


@pytest.mark.parametrize("place", LINKED)
def test_no_picture_is_written_through_a_strangers_link_at(place, results, explanation, canary):
    for correct in ("Correct", "Incorrect") if place == "Original/Correct" else ():
        link(results.output / "Original" / correct, canary)
    if place != "Original/Correct":
        link(results.output / place, canary)
    with pytest.raises(guard.Outside, match=f"{results.output / place.split('/')[0]}.*is a link to {canary}"):
        write(results, explanation)


@pytest.mark.parametrize("place", ["Results", "Original", "Results/exp/log", "Results/exp/explanation/CC/CCF/CF"])
def test_a_run_refuses_a_strangers_link_before_it_computes(place, tmp_path, canary):
    link(tmp_path / place, canary)
    with pytest.raises(guard.Outside, match=f"{tmp_path / place}: is a link .* or make {tmp_path} itself the link"):
        ResultFolder(tmp_path, "exp").create()


def test_the_folder_itself_may_be_a_link_of_a_stranger_or_of_ones_own(tmp_path, explanation):
    (tmp_path / "disk").mkdir()
    link(tmp_path / "out", tmp_path / "disk")
    results = ResultFolder(tmp_path / "out", "exp")
    results.create()
    write(results, explanation)
    assert (tmp_path / "disk/Results/exp/records/0000003.json").is_file()


def test_a_file_in_a_strangers_folder_that_is_a_link_is_not_replaced(results, explanation, canary):
    link(results.record(3), canary / "0000003.json")
    with pytest.raises(guard.Outside, match="0000003.json: is a link"):
        write(results, explanation)


def test_beginning_anew_in_a_strangers_folder_deletes_nothing_where_a_link_is(results, canary):
    results.record(1).write_text("{}")
    link(results.root / "explanation/CC/CCF/CF", canary)
    with pytest.raises(guard.Outside, match="CC/CCF/CF: is a link"):
        begin_anew(results)
    assert results.record(1).exists() and not (results.root / "log/clearing").exists()


def test_verifying_a_strangers_folder_moves_no_file_away_through_a_link(results, canary):
    folder = results.root / "explanation/CC/CCF/CF"
    link(folder, canary)
    with pytest.raises(guard.Outside, match="CF: is a link"):
        move_aside(results, [Finding("damaged", (folder / "0000003.png",))])


def test_verifying_a_strangers_folder_moves_nothing_into_a_linked_one(results, canary):
    results.record(1).write_text("{}")
    link(results.log / "damaged", canary)
    with pytest.raises(guard.Outside, match="damaged: is a link"):
        move_aside(results, [Finding("damaged", (results.record(1),))])


def test_temporary_files_behind_a_strangers_link_stay(results, canary):
    link(results.root / "explanation/CC/CCF/SM", canary)
    os.utime(canary / ".a.json.here-1.tmp", (0, 0))
    with pytest.raises(guard.Outside, match="SM: is a link"):
        atomic.remove_strays(results.folders())


@pytest.mark.parametrize("place", ["gate", "."])
def test_a_lock_is_not_taken_through_a_strangers_link(place, results, canary):
    link(results.log / place if place != "." else results.log, canary / place)
    with pytest.raises(guard.Outside, match="is a link"), hold(results.log):
        pass


def test_a_pipe_of_a_stranger_in_place_of_the_gate_is_named_at_once(results):
    os.mkfifo(results.log / "gate")
    with pytest.raises((OSError, ValueError), match="gate"), hold(results.log):
        pass


def test_a_log_is_not_written_through_a_strangers_link(results, canary):
    link(results.log, canary)
    with pytest.raises(guard.Outside, match="log: is a link"), run_log(results.log, {}):
        pass


def test_a_temporary_name_that_a_stranger_took_for_a_link_is_not_written_through(results, canary):
    place = results.root / "config.yaml"
    link(place.with_name(f".config.yaml.{atomic.owner()}.tmp"), canary / "config.yaml")
    with pytest.raises(guard.Outside, match="is a link"):
        atomic.write_bytes(place, b"new")


def test_a_path_that_leads_out_of_a_strangers_folder_is_refused(results):
    with pytest.raises(guard.Outside, match="leads out of the folder"):
        atomic.write_bytes(results.root / ".." / ".." / ".." / "x", b"")


def test_a_file_that_the_user_named_itself_is_no_strangers(tmp_path):
    atomic.write_text(tmp_path / "x.json", "{}")
    assert (tmp_path / "x.json").read_text() == "{}"


def test_a_picture_of_a_stranger_is_read_through_a_link(results, explanation, tmp_path_factory):
    write(results, explanation)
    there = tmp_path_factory.mktemp("pool") / "original.png"
    place = next(path for path in results.originals(3))
    shutil.move(place, there)
    link(place, there)
    write(results, explanation)
    assert place.is_symlink() and there.is_file()


def test_a_further_name_of_a_file_of_the_users_does_not_lead_a_stranger_to_it(tmp_path):
    own, folder = tmp_path / "own.txt", tmp_path / "given"
    own.write_text("mine")
    folder.mkdir()
    os.link(own, folder / f".table.csv.{atomic.owner()}.tmp")
    atomic.write_text(folder / "table.csv", "theirs")
    assert own.read_text() == "mine" and (folder / "table.csv").read_text() == "theirs"
