"""Seeded ways to spoil a small result folder: each program does its work or refuses in one line, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.paths import ROOT


def anybody_reads(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (folder, *folder.parents))


@pytest.fixture
def folder():
    """One that an ordinary user can reach, which pytest's own are not where root runs them."""
    if os.getuid() == 0 and not anybody_reads(Path(sys.prefix)):
        pytest.skip(f"root's {sys.prefix} cannot be read by the ordinary user that this runs as")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def fuzz(folder: Path, runs: int, *words: str) -> dict:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "tests/support/fuzz_results.py", folder / "scene", str(runs), "0", *words]
    limit = 300 + 20 * runs
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["findings"] == []
    assert report["runs"] == runs and {"0", "1", "2"} <= report["codes"].keys()
    return report


@pytest.mark.parametrize(
    "runs", [pytest.param(150, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)]
)
def test_fuzzed_result_folders_of_a_stranger_are_read_or_refused_and_no_canary_changes(folder, runs):
    fuzz(folder, runs)


@pytest.mark.long
def test_fuzzed_result_folders_are_given_to_whole_programs(folder):
    fuzz(folder, 300, "whole")
