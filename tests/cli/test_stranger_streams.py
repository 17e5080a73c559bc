"""Output that nobody reads any more, and cells that a spreadsheet program would compute."""

import csv
import io
import os
import subprocess
import sys

import pytest

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.cells import as_cell, from_cell
from ace_counterfactuals.core.cli.streams import Lenient, settle_streams
from ace_counterfactuals.core.runs.tables import read_table
from tests.support.paths import MAIN
from tests.support.toys import Workshop, tree

FORMULAS = ["=1+2", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "-a.png"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_a_stranger_made_a_formula_is_text_and_comes_back(text, tmp_path):
    atomic.write_csv(tmp_path / "t.csv", [{"file": text}], ["file"])
    with open(tmp_path / "t.csv", newline="") as file:
        (shown,) = csv.DictReader(file)
    assert shown["file"] == f"'{text}" and list(read_table(tmp_path / "t.csv")) == [{"file": text}]


@pytest.mark.parametrize("value", ["-1", "-0.5", "1e-05", "boot/=a.png", "'quoted'", "", "'", -1, -0.25, None, True])
def test_a_cell_that_is_no_formula_stays_as_it_is(value):
    assert as_cell(value) is value and from_cell(str(value)) == str(value)


def test_a_name_that_is_not_utf8_can_be_written_to_a_strangers_table(tmp_path):
    atomic.write_csv(tmp_path / "t.csv", [{"file": os.fsdecode(b"caf\xe9")}], ["file"])
    assert (tmp_path / "t.csv").read_bytes() == b"file\ncaf\\udce9\n"


@pytest.fixture
def broken():
    """Written to, it raises BrokenPipeError."""
    end, descriptor = os.pipe()
    os.close(end)
    yield descriptor
    os.close(descriptor)


def test_a_reader_that_a_stranger_took_away_is_no_error(broken):
    assert Lenient(broken, BrokenPipeError).write(b"told") == 4


def test_a_full_disk_under_stdout_is_an_error_and_under_stderr_is_none():
    for dropped in (BrokenPipeError, OSError):
        with open("/dev/full", "wb", buffering=0) as full:
            stream = Lenient(full.fileno(), dropped)
            if dropped is OSError:
                assert stream.write(b"told") == 4
            else:
                with pytest.raises(OSError, match="No space left"):
                    stream.write(b"told")


def test_streams_that_were_closed_before_the_start_have_a_place(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    settle_streams()
    print("told", file=sys.stderr)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert stream.name == os.devnull
        stream.close()


def test_streams_of_a_host_program_are_left_alone(monkeypatch):
    own = io.StringIO()
    monkeypatch.setattr(sys, "stderr", own)
    settle_streams()
    assert sys.stderr is own


@pytest.mark.slow
@pytest.mark.parametrize("end", ["2>&-", "2> >(exec <&-; sleep 60)", ">&- 2>&-", "| true"])
def test_a_run_whose_output_a_stranger_closed_is_finished(end, tmp_path):
    shop = Workshop(tmp_path)
    shop.run()
    words = [sys.executable, str(MAIN), *shop.arguments(output_path=tmp_path / "other")]
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", f'"$@" {end}', "bash", *words], timeout=300)
    assert ended.returncode == 0
    assert tree(shop.output) == tree(tmp_path / "other")
