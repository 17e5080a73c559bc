"""--status tells what is done, missing and running, and touches nothing."""

import subprocess
import sys
import time

import pytest

from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.runs import locks, telling
from ace_counterfactuals.core.runs import run as run_module
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.status import duration, status
from tests.support.paths import ROOT
from tests.support.toys import Workshop, tree


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    return Workshop(tmp_path)


def told(workshop):
    return status(ResultFolder(workshop.output, "exp"))


def test_it_says_what_is_done_and_missing_over_all_chunks(workshop):
    workshop.run(chunk=1, chunks=3)
    lines = told(workshop).splitlines()
    assert lines[0] == f"{workshop.results()}: 2 of 6 pictures done, 0 skipped, 4 missing"
    assert lines[1] == "nothing is running" and lines[2].startswith("flip rate so far ") and "of 2)" in lines[2]


def test_a_skipped_picture_is_neither_done_nor_missing(workshop):
    (workshop.data / "boot/000.png").write_bytes(b"no picture")
    workshop.run()
    assert "5 of 6 pictures done, 1 skipped, 0 missing" in told(workshop)


def test_a_running_process_is_named_with_its_speed_and_the_time_left(workshop, monkeypatch):
    attack, seen = run_module.attacked, []

    def explaining(*inputs, **options):
        while len(ResultFolder(workshop.output, "exp").record_paths()) < len(seen):
            time.sleep(0.01)  # another thread writes the pictures before
        seen.append(told(workshop))
        return attack(*inputs, **options)

    monkeypatch.setattr(run_module, "attacked", explaining)
    workshop.run(batch_size=1, chunk=0, chunks=2)
    first, last = seen[0].splitlines(), seen[-1].splitlines()
    assert first[1].startswith("chunk 0 of 2: process ") and first[1].endswith(": alive") and len(first) == 2
    assert "2 of 6 pictures done" in last[0] and "images/min" in last[1]
    assert "left at this speed" in last[-1]


def test_a_dead_process_is_told_from_a_silent_one(workshop):
    workshop.run(num_samples=1)
    log = workshop.results() / "log"
    lock = '{"host": "%s", "pid": 99999999, "born": null, "since": "then", "chunk": %d, "chunks": 2, "flock": false, '
    lock += '"beat": "0"}'
    (log / "chunk-0-of-2.lock").write_text(lock % (locks.host_name(), 0))
    (log / "chunk-1-of-2.lock").write_text(lock % ("node7", 1))
    lines = told(workshop).splitlines()
    assert lines[1].endswith("since then: gone") and lines[2].endswith("node7 since then: silent for 0.075 s")
    assert lines[3] == "nothing is running"


def test_it_reads_only(workshop, capsys):
    workshop.run(num_samples=2)
    before = tree(workshop.output, without=())
    capsys.readouterr()
    assert main(["--output_path", str(workshop.output), "--exp_name", "exp", "--status", "True"]) == 0
    assert capsys.readouterr().out == told(workshop) + "\n"
    assert tree(workshop.output, without=()) == before


def test_an_experiment_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="output_path .*: no results there"):
        status(ResultFolder(tmp_path, "exp"))
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_a_line_tells_the_progress_now_and_then(workshop, capsys, monkeypatch):
    workshop.run(num_samples=2, batch_size=1)
    assert "pictures done" not in capsys.readouterr().err
    monkeypatch.setattr(telling, "QUIET", 0.0)
    workshop.run(num_samples=4, batch_size=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "pictures done" in line]
    assert [line.split(",")[0] for line in lines] == ["note: 1 of 2 pictures done", "note: 2 of 2 pictures done"]


def test_a_misspelt_experiment_brings_up_the_one_that_is_there(workshop):
    workshop.run(num_samples=1, exp_name="group/pullover-coat")
    with pytest.raises(ValueError, match="did you mean group/pullover-coat"):
        status(ResultFolder(workshop.output, "group/pulover-coat"))


def test_it_imports_no_torch(workshop):
    workshop.run(num_samples=1)
    arguments = ["--output_path", str(workshop.output), "--status", "True"]
    program = "from ace_counterfactuals.core.cli.explain import main"
    script = f"import sys\nsys.modules['torch'] = None\n{program}\nmain({arguments!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "") and "1 of 1 pictures done" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3540, "59 min"), (12000, "3 h 20 min")]
)
def test_times_are_told_in_words(seconds, text):
    assert duration(seconds) == text
