"""A disk that fills in the middle of a run, and one that may not be written."""

import os
import subprocess
import sys

import pytest

from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.verify import verify
from tests.support.paths import MAIN
from tests.support.toys import Workshop, tree


@pytest.fixture
def mounted(tmp_path):
    """Function: mount options -> a small file system in memory."""
    places = []

    def mount(options: str):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a file system needs root")
        places.append(place)
        return place

    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_a_disk_that_fills_leaves_nothing_half_and_is_gone_on_with_after_making_room(workshop, mounted, capsys):
    place = mounted("size=1m")
    filling = place / "filling"
    filling.write_bytes(b"x" * (1024 * 1024 - 140 * 1024))  # a page of 4 KiB a file: room for some pictures
    assert workshop.exit_code(output_path=place / "out", batch_size=1) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"error: {place}/out/") and line.endswith("No space left on device")
    results = ResultFolder(place / "out", "exp")
    kept = len(results.read()[0])
    assert 0 < kept < 6 and not list(place.rglob("*.tmp"))
    filling.unlink()
    assert workshop.exit_code(output_path=place / "out", batch_size=1) == 0
    assert f"{kept} of 6 pictures are finished already" in capsys.readouterr().err
    assert workshop.exit_code(batch_size=1) == 0
    assert tree(place / "out") == tree(workshop.output)
    assert verify(results) == []


def test_a_folder_on_a_read_only_disk_is_named(workshop, mounted, capsys):
    place = mounted("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    assert workshop.exit_code(output_path=place / "out") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"error: {place}/out: Read-only file system"


def test_a_finished_run_on_a_read_only_disk_can_be_looked_at(workshop, mounted):
    place = mounted("size=4m")
    workshop.run(output_path=place / "out", num_samples=2)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    command = [sys.executable, MAIN, "--output_path", str(place / "out"), "--status", "True"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "2 of 2 pictures done" in done.stdout
