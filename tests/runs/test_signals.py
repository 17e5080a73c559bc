"""Signals: the pictures in hand are finished or dropped, the rest is in order, and the exit code says which."""

import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
import yaml

from ace_counterfactuals.core.base import signals
from ace_counterfactuals.core.runs import run as run_module
from ace_counterfactuals.core.runs.locks import holders
from ace_counterfactuals.core.runs.status import RUNNING, read_logs
from tests.support.paths import MAIN
from tests.support.toys import Workshop, tree


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def finished(workshop):
    return sorted(path.stem for path in (workshop.results() / "records").glob("*.json"))


def signalled(workshop, monkeypatch, *numbers, during=2, endless=False, **settings):
    """The exit code of a run that gets signals while it explains its second batch."""
    attack, calls = run_module.attacked, []

    def explaining(*inputs, **options):
        calls.append(1)
        if len(calls) == during:
            for number in numbers:
                os.kill(os.getpid(), number)
            while endless:
                time.sleep(0.01)
        return attack(*inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "attacked", explaining)
        return workshop.exit_code(**settings)


def last_log(workshop):
    return next(read_logs(workshop.results() / "log"))[1]


CODES = [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_lets_the_pictures_in_hand_be_finished(workshop, monkeypatch, capfd, number, code, workers):
    assert signalled(workshop, monkeypatch, number, num_workers=workers) == code
    printed = capfd.readouterr().err
    assert f"{signal.Signals(number).name}: stopping after the pictures in hand, in at most 20 s\n" in printed
    assert printed.splitlines()[-1] == signals.INTERRUPTED
    assert finished(workshop) == ["0000000", "0000001", "0000002", "0000003"]
    assert yaml.safe_load((workshop.results() / "summary.yaml").read_text())["n"] == 4
    assert holders(workshop.results() / "log") == []
    assert last_log(workshop).ended == f"stopped by {signal.Signals(number).name}"


def test_pictures_in_hand_that_take_too_long_are_dropped(workshop, monkeypatch, capfd):
    monkeypatch.setattr(signals, "GRACE", 0.1)
    assert signalled(workshop, monkeypatch, signal.SIGTERM, endless=True) == 143
    assert finished(workshop) == ["0000000", "0000001"]
    assert yaml.safe_load((workshop.results() / "summary.yaml").read_text())["n"] == 2
    assert not [name for name in tree(workshop.output, without=()) if name.endswith(".tmp")]


def test_a_second_ctrl_c_stops_at_once(workshop, monkeypatch):
    assert signalled(workshop, monkeypatch, signal.SIGINT, signal.SIGINT, endless=True) == 130
    assert finished(workshop) == ["0000000", "0000001"]


def test_a_second_sigterm_is_what_the_first_was(workshop, monkeypatch):
    assert signalled(workshop, monkeypatch, signal.SIGUSR1, signal.SIGTERM) == 143
    assert len(finished(workshop)) == 4


@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_the_networks_are_loaded_a_signal_stops_at_once(workshop, monkeypatch, number, code):
    def loading(*_):
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(run_module, "load_networks", loading)
    assert workshop.exit_code() == code
    assert not workshop.output.exists()


def test_the_same_command_ends_with_the_same_files_after_a_signal(workshop, monkeypatch):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        assert signalled(workshop, monkeypatch, signal.SIGTERM, batch_size=1) == 143
        workshop.run(batch_size=1)
        stopped = tree(workshop.results())
        workshop.run(batch_size=1, overwrite=True)
    assert tree(workshop.results()) == stopped and len(finished(workshop)) == 6


def test_a_device_that_fails_is_one_line_and_the_same_command_continues(workshop, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        attack, calls = run_module.attacked, []

        def failing(*inputs, **options):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous")
            return attack(*inputs, **options)

        patch.setattr(run_module, "attacked", failing)
        assert workshop.exit_code() == 2
    line = "error: the device failed (CUDA error: unspecified launch failure); what was finished is kept"
    printed = capfd.readouterr().err
    assert printed.splitlines()[-1].startswith(line) and "Traceback" not in printed
    assert finished(workshop) == ["0000000", "0000001"]
    assert workshop.exit_code() == 0 and len(finished(workshop)) == 6


def test_an_error_of_ours_is_no_failing_device(workshop, monkeypatch):
    monkeypatch.setattr(run_module, "attacked", lambda *inputs, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workshop.exit_code()


def test_afterwards_signals_mean_what_they_did_before():
    before = [signal.getsignal(number) for number in signals.CODES]
    with signals.handled():
        assert [signal.getsignal(number) for number in signals.CODES] != before
    assert [signal.getsignal(number) for number in signals.CODES] == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_torch_is_imported_a_signal_stops_at_once(workshop, number, code):
    """The program tells its imports, so that the signal comes in the middle of torch's."""
    command = [sys.executable, "-X", "importtime", MAIN, *workshop.arguments()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        while "torch." not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        errors = process.stderr.read()
        assert process.wait(60) == code
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert errors.splitlines()[-1] == signals.INTERRUPTED and "Traceback" not in errors
    assert not workshop.output.exists()


def test_a_log_says_that_its_process_runs_until_it_says_how_it_ended(workshop, monkeypatch):
    seen = []
    attack = run_module.attacked
    monkeypatch.setattr(
        run_module, "attacked", lambda *inputs, **options: seen.append(last_log(workshop)) or attack(*inputs, **options)
    )
    workshop.run(num_samples=1)
    assert (seen[0].ended, seen[0].end) == (RUNNING, None)
    assert last_log(workshop).ended == "finished"
