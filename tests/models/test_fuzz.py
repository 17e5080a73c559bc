"""Seeded mutations of small weight files: each loads or is refused in one line."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("runs", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_fuzzed_weights_load_or_are_refused_and_nothing_else_happens(tmp_path, runs):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "tests/support/fuzz_worker.py", tmp_path, str(runs), "0"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120 + runs / 5, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["findings"] == []
    assert not report["canary"]
    assert report["loaded"] + report["refused"] == runs and report["refused"] > runs / 2
    assert report["slowest"] < 5
    assert report["peak_mib"] < 2048
