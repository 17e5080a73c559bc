"""postprocessing.py as a program that is split, killed, locked, continued and checked."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ace_counterfactuals.core.postprocessing import postprocess as postprocess_module
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.verify import verify
from tests.support.paths import ROOT
from tests.support.refinery import OWN, RUN, Refinery
from tests.support.toys import tree


def test_many_settings_load_each_network_once(refinery, tmp_path, monkeypatch):
    loaded = []
    for name in ("load_denoiser", "load_explained"):
        load = getattr(postprocess_module, name)
        monkeypatch.setattr(
            postprocess_module, name, lambda *args, load=load, name=name: loaded.append(name) or load(*args)
        )
    refinery.refine("--sampling_inpaint", 0.1, 0.5, "--sampling_dilation", 1, 3)
    assert sorted(loaded) == ["load_denoiser", "load_explained"]
    assert len(list(refinery.results().glob("all_filtered_*/summary.yaml"))) == 4


def test_it_goes_on_where_it_was_killed(again):
    whole = tree(again.output)
    for index in (1, 4):
        (again.results() / OWN / f"records/{index:07d}.json").unlink()
    (again.results() / OWN / "summary.yaml").unlink()
    again.refine()
    assert tree(again.output) == whole


def test_it_begins_anew_if_it_is_asked_to(again):
    whole = tree(again.output)
    picture = next((again.results() / OWN).glob("*/*/CF/*.png"))
    picture.write_bytes(b"spoilt")
    again.refine(overwrite=True)
    assert tree(again.output) == whole


def test_what_is_damaged_is_found_and_done_again(again, capsys):
    whole = tree(again.output)
    results = ResultFolder(again.output, f"exp/{OWN}")
    assert verify(results) == []
    picture = next(results.root.glob("*/*/CF/0000004.png"))
    picture.write_bytes(picture.read_bytes()[:-20])
    (finding,) = verify(results)
    assert finding.paths[0] == results.record(4)
    again.refine()
    assert tree(again.output) == whole


def test_a_second_process_on_the_same_setting_is_refused(refinery, capsys):
    refinery.refine()
    with hold(refinery.results() / OWN / "log"):
        assert f"process {os.getpid()} on" in refinery.error(capsys)


def test_the_status_tells_of_every_setting(refinery, capsys):
    assert "nothing was refined" in refinery.error(capsys, status=True)
    refinery.refine("--sampling_inpaint", 0.2, 0.5)
    capsys.readouterr()
    refinery.refine(status=True)
    assert capsys.readouterr().out.count("6 of 6 pictures done, 0 skipped, 0 missing") == 2


def test_chunks_merge_into_the_whole(refinery, monkeypatch):
    refinery.refine("--sampling_inpaint", 0.2, 0.5)
    whole = tree(refinery.output)
    for path in [*refinery.results().glob("all_filtered_*"), *refinery.results().glob("sweep.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for chunk in (2, 0):
        assert not (refinery.results() / "sweep.csv").exists()
        refinery.refine("--sampling_inpaint", 0.2, 0.5, chunks=3, chunk=chunk)
    for name, value in {"RANK": 1, "WORLD_SIZE": 3, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    refinery.refine("--sampling_inpaint", 0.2, 0.5, chunk="auto")
    refinery.refine("--sampling_inpaint", 0.2, 0.5, chunks=3, merge_chunks=True)
    assert {name: data for name, data in tree(refinery.output).items() if "/c-" not in name} == whole


def test_merging_names_what_is_missing(refinery, capsys):
    refinery.refine(chunks=3, chunk=1)
    assert "4 of 6 pictures are missing" in refinery.error(capsys, chunks=3, merge_chunks=True)


@pytest.mark.slow
def test_postprocessing_as_it_is_typed(tmp_path):
    workshop = Refinery(tmp_path)

    def typed(script, *words):
        command = [sys.executable, str(ROOT / script), *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    typed("main.py", *workshop.arguments(save_float=True, **RUN))
    where = ("--output_path", workshop.output, "--exp_name", "exp")
    printed = typed("postprocessing.py", *where, "--sampling_inpaint", 0.05, 0.15, "--sampling_dilation", 5)
    for inpaint in (0.05, 0.15):
        name = f"all_filtered_r-10_i-{inpaint}_d-5_f-0.2"
        assert name in printed and len(workshop.levels("CF", f"exp/{name}")) == 6
    assert "sweep.png" in printed
    assert "--sampling_inpaint FLOAT [FLOAT ...]" in typed("postprocessing.py", "--help")


@pytest.mark.slow
def test_postprocessing_that_is_killed_between_two_settings_ends_with_the_same_tree(refinery):
    sweep = ("--sampling_inpaint", "0.2", "0.5", "--sampling_dilation", "1", "3")
    refinery.refine(*sweep)
    whole = tree(refinery.output)
    for path in refinery.results().glob("all_filtered_*"):
        shutil.rmtree(path)
    where = ("--output_path", str(refinery.output), "--device", "cpu", "--batch_size", "1", "--num_workers", "0")
    command = [sys.executable, str(ROOT / "postprocessing.py"), *where, *sweep]
    for number, records in ((signal.SIGKILL, 2), (signal.SIGTERM, 9), (signal.SIGKILL, 15)):
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while running.poll() is None and len(list(refinery.results().glob("all_filtered_*/records/*.json"))) < records:
            time.sleep(0.02)
        running.send_signal(number)
        assert running.wait() in (-9, 143)
    assert len(list(refinery.results().glob("all_filtered_*/records/*.json"))) < 24
    refinery.refine(*sweep)
    assert tree(refinery.output) == whole
