"""Going on with a folder: what may differ between the runs that fill it, and what is refused."""

import os
import shutil
from contextlib import suppress

import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import owner
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.records import read_record
from ace_counterfactuals.core.runs.status import read_logs
from tests.support.toys import Workshop, tree


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_everything_but_the_log_is_the_same_for_two_ways_to_split_and_compute(workshop, whole):
    for settings in ({"chunks": 3, "chunk": 2}, {"chunks": 2, "chunk": 1, "num_workers": 1}, {"num_samples": 4}, {}):
        workshop.run(batch_size=1, data_dir=whole.data, model_path=whole.model, classifier_path=whole.classifier,
                     **settings)  # fmt: skip
    files = {name: data for name, data in tree(workshop.output).items() if "/c-" not in name}
    assert files == tree(whole.output)


def test_merged_chunks_are_byte_for_byte_the_unsplit_run(workshop, whole):
    """Of another data set that was unsplit, too: only the chunks' own tables are left."""
    paths = {"data_dir": whole.data, "model_path": whole.model, "classifier_path": whole.classifier}
    for chunk in (2, 0, 1):
        workshop.run(batch_size=1, chunks=3, chunk=chunk, **paths)
    workshop.run(merge_chunks=True, chunks=3, **paths)
    assert {name: data for name, data in tree(workshop.output).items() if "/c-" not in name} == tree(whole.output)


def test_a_chunk_says_how_the_chunks_come_together(workshop, capsys):
    workshop.run(chunks=3, chunk=0)
    assert "when all 3 chunks are done, --merge_chunks True gathers them" in capsys.readouterr().out
    workshop.run()
    assert "--merge_chunks" not in capsys.readouterr().out


def test_merging_with_other_flags_than_the_chunks_is_refused(copy):
    with pytest.raises(ValueError, match="made with other settings: attack_step 4.0 .there: 8.0."):
        copy.run(merge_chunks=True, attack_step=4)


def test_an_experiment_that_is_older_than_a_flag_was_made_with_its_default(copy):
    path = ResultFolder(copy.output, "exp").root / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "clip_denoised:" not in line))
    copy.run()
    with pytest.raises(ValueError, match="clip_denoised False .there: True."):
        copy.run(clip_denoised=False)


def test_another_number_of_threads_is_recorded_and_not_refused(copy):
    threads, before = torch.get_num_threads(), tree(copy.output)
    try:
        torch.set_num_threads(threads + 1)
        copy.run()
    finally:
        torch.set_num_threads(threads)
    counts = [log.threads for _, log in read_logs(copy.results() / "log")]
    assert sorted(counts) == [threads, threads + 1] and tree(copy.output) == before


def test_merging_says_which_chunk_to_run(workshop):
    workshop.run(chunk=1, chunks=3)
    with pytest.raises(ValueError, match="run chunk 0, 2 of 3"):
        workshop.run(merge_chunks=True, chunks=3)


def test_a_record_that_is_not_whole_counts_as_unfinished_with_a_notice(copy, whole, capsys):
    damage = [b"", b'{"index": 1, "fi', b"[]", b'{"index": 3}', b"\xff\xfe"]
    records = [copy.results() / f"records/{index:07d}.json" for index in range(5)]
    for record, data in zip(records, damage, strict=True):
        record.write_bytes(data)
    copy.run(batch_size=1)
    printed = capsys.readouterr().err
    assert [record for record in records if f"{record}: " not in printed] == []
    assert "1 of 6 pictures are finished already" in printed
    assert tree(copy.output) == tree(whole.output)


def test_a_record_under_another_pictures_name_does_not_count(copy, whole):
    records = copy.results() / "records"
    shutil.copy(records / "0000001.json", records / "0000002.json")
    copy.run(batch_size=1)
    assert tree(copy.output) == tree(whole.output)


def test_temporary_files_of_a_killed_process_are_removed_and_those_of_a_live_one_are_not(copy, whole):
    place = copy.results() / "explanation/CC/CCF/CF"
    host = owner().rsplit("-", 1)[0]
    dead, other, live = (
        place / f".0000002.png.{name}.tmp" for name in (f"{host}-99999999", "elsewhere-1", f"{host}-1")
    )
    for path in (dead, other, live):
        path.write_bytes(b"half a pic")
    copy.run()
    assert [path.exists() for path in (dead, other, live)] == [False, True, True]


def test_temporary_files_of_another_host_are_removed_when_they_are_old(tmp_path):
    path = tmp_path / ".0000002.png.elsewhere-1.tmp"
    path.write_bytes(b"half a pic")
    os.utime(path, (0, 0))
    atomic.remove_strays([tmp_path])
    assert not path.exists()


def test_a_picture_that_was_exchanged_for_another_of_the_same_name_is_refused(copy, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(copy.data, data)
    shutil.copy(data / "boot/000.png", data / "coat/001.png")
    with pytest.raises(ValueError, match="made with other pictures: coat/001.png in .* has other pixels"):
        copy.run(data_dir=data)


def test_a_picture_that_was_stored_anew_with_the_same_pixels_is_the_same_picture(copy, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(copy.data, data)
    with Image.open(data / "coat/001.png") as picture:
        picture.save(data / "coat/001.png", compress_level=0)
    copy.run(data_dir=data)


def test_originals_that_a_stranger_deleted_are_written_again_without_a_new_attack(copy, whole, monkeypatch, capsys):
    shutil.rmtree(copy.output / "Original")
    monkeypatch.setattr("ace_counterfactuals.core.runs.run.attacked", None)
    copy.run(batch_size=1)
    assert tree(copy.output) == tree(whole.output)
    assert "6 originals of finished pictures were gone, and are written again" in capsys.readouterr().err


def test_an_original_is_not_written_again_from_a_strangers_picture(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("ace_counterfactuals.core.runs.run.DECODED", 1)
    data = shutil.copytree(copy.data, tmp_path / "data")
    Image.new("RGB", (16, 16)).save(max(data.rglob("*.png")))
    shutil.rmtree(copy.output / "Original")
    with pytest.raises(ValueError, match="has other pixels than the one that was explained"):
        copy.run(batch_size=1, data_dir=data)


def test_a_folder_of_the_original_program_is_refused_with_the_reason(copy):
    """It has pictures, but neither records nor settings."""
    shutil.rmtree(copy.results() / "records")
    (copy.results() / "config.yaml").unlink()
    before = tree(copy.output, without=())
    with pytest.raises(ValueError, match="0000000.png but no config.yaml: it was not made by main.py"):
        copy.run()
    assert tree(copy.output, without=()) == before


def test_records_without_settings_are_refused(copy):
    (copy.results() / "config.yaml").unlink()
    with pytest.raises(ValueError, match="but no config.yaml: .* half deleted, and cannot be continued"):
        copy.run(attack_step=4)


def test_folders_that_are_empty_may_be_filled(workshop):
    ResultFolder(workshop.output, "exp").create()
    assert workshop.run(num_samples=1) == 0


def test_a_picture_that_is_explained_again_leaves_nothing_behind_even_if_it_fails(copy, monkeypatch):
    """The old record goes first, so that no record ever has another's files."""
    results = ResultFolder(copy.output, "exp")
    record = read_record(results.record(2))
    seen = []
    monkeypatch.setattr(os, "replace", lambda *_: seen.append(results.record(2).exists()))
    results.write(record, None)
    assert seen == [False] * 3 and not [path for path in results.places(2) if path.suffix == ".png" and path.exists()]


def test_a_picture_that_can_no_longer_be_read_keeps_no_files(copy):
    results = ResultFolder(copy.output, "exp")
    results.write_skipped(2, "coat/001.png", "cut short")
    assert not any(path.exists() for path in results.places(2)) and list(results.read()[1]) == [2]


def test_two_processes_that_begin_one_folder_with_other_settings_do_not_mix(tmp_path):
    """The second finds the first one's settings, even between looking and writing."""
    assert atomic.write_once(tmp_path / "config.yaml", b"first")
    assert not atomic.write_once(tmp_path / "config.yaml", b"second")
    assert tree(tmp_path) == {"config.yaml": b"first"}


def test_overwriting_begins_anew_with_whatever_settings(copy):
    copy.run(overwrite=True, attack_step=4, batch_size=1)
    anew = tree(copy.results())
    assert b"attack_step: 4.0" in anew["config.yaml"]
    copy.run(exp_name="other", attack_step=4, batch_size=1)
    other = tree(copy.results("other"))
    assert {name for name in anew if anew[name] != other.get(name)} == {"sheet.png"}  # it shows the name


def test_overwriting_leaves_nothing_of_a_larger_run_and_keeps_the_log(copy):
    copy.run(overwrite=True, num_samples=2)
    assert {name.rpartition("/")[2].partition(".")[0] for name in tree(copy.results()) if "/00" in name} == {
        "0000000",
        "0000001",
    }
    assert len(list((copy.results() / "log").glob("*.json"))) == 2


def test_overwriting_names_what_was_made_from_the_old_run(copy, capsys):
    (ResultFolder(copy.output, "exp").root / "all_filtered_x").mkdir()
    copy.run(overwrite=True)
    assert "all_filtered_x: made from what is overwritten, and left" in capsys.readouterr().err


def test_overwriting_one_chunk_forgets_that_chunk_alone(copy, capsys):
    copy.run(overwrite=True, chunk=1, chunks=3, batch_size=1)
    assert "finished already" not in capsys.readouterr().err
    copy.run(overwrite=True, chunk=1, chunks=2, num_samples=2, batch_size=1)
    assert sorted(int(path.stem) for path in (copy.results() / "records").iterdir()) == [0, 1, 2, 4]


def test_overwriting_one_chunk_with_other_settings_is_refused(copy):
    before = tree(copy.output, without=())
    with pytest.raises(ValueError, match="made with other settings: attack_step 4.0"):
        copy.run(overwrite=True, chunk=1, chunks=3, attack_step=4)
    assert tree(copy.output, without=()) == before


def test_overwriting_that_was_cut_short_is_gone_on_with(copy, monkeypatch):
    """By whatever command comes next: nothing of the old settings is left by then."""
    removed = []

    def unlink(path, **_):
        if len(removed) == 20:
            raise KeyboardInterrupt
        with suppress(FileNotFoundError):
            removed.append(os.unlink(path))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            copy.run(overwrite=True, attack_step=4, batch_size=1)
    copy.run(attack_step=4, batch_size=1)
    assert b"attack_step: 4.0" in tree(copy.results())["config.yaml"] and len(removed) == 20
    copy.run(exp_name="other", attack_step=4, batch_size=1)
    assert tree(copy.results(), without=("log", "sheet.png")) == tree(
        copy.results("other"), without=("log", "sheet.png")
    )


def test_a_restarted_job_does_not_throw_its_own_work_away(copy, capsys, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    copy.run(overwrite=True)
    printed = capsys.readouterr().err
    assert "overwrite True is ignored: this job was restarted" in printed and "6 of 6 pictures are finished" in printed


def test_a_folder_of_another_program_is_not_overwritten(copy):
    (copy.results() / "config.yaml").unlink()
    before = tree(copy.output, without=())
    with pytest.raises(ValueError, match="was not made by main.py"):
        copy.run(overwrite=True, attack_step=4)
    assert tree(copy.output, without=()) == before


def test_overwriting_and_merging_contradict_each_other(copy):
    with pytest.raises(ValueError, match="overwrite True forgets what merge_chunks gathers"):
        copy.run(overwrite=True, merge_chunks=True)


def test_a_second_process_on_an_overlapping_chunk_is_refused(copy):
    results = ResultFolder(copy.output, "exp")
    with hold(results.log, 1, 2), pytest.raises(ValueError, match="process .* is working on it .chunk 1 of 2"):
        copy.run(chunk=3, chunks=4)


def test_a_finished_picture_of_which_a_file_is_gone_is_explained_again(copy, whole, capsys):
    results = ResultFolder(copy.output, "exp")
    next(results.root.glob("explanation/*/*/CF/*.png")).unlink()
    capsys.readouterr()
    copy.run(batch_size=1)
    assert "files of 1 finished pictures are gone" in capsys.readouterr().err
    assert tree(copy.output) == tree(whole.output)


def test_a_table_of_a_strangers_in_a_new_experiments_folder_is_not_overwritten(workshop):
    (workshop.results() / "results.csv").parent.mkdir(parents=True)
    (workshop.results() / "results.csv").write_text("mine")
    with pytest.raises(ValueError, match="holds results.csv but no config.yaml"):
        workshop.run()
    assert (workshop.results() / "results.csv").read_text() == "mine"


def test_a_folder_of_the_original_program_that_holds_pictures_alone_is_refused(copy):
    root = ResultFolder(copy.output, "swap").root
    (root / "CC/CCF/CF").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds CC but no config.yaml: it was not made by main.py"):
        copy.run(exp_name="swap")


@pytest.mark.parametrize(
    "name, reason",
    [("exp/inner", "lies in the experiment"), ("exp/explanation", "a folder within experiments")],
)
def test_an_experiment_does_not_lie_in_another(copy, name, reason):
    with pytest.raises(ValueError, match=reason):
        copy.run(exp_name=name)
