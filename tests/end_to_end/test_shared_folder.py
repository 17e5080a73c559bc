"""Many processes write into one result folder: nothing collides and no line is lost."""

import csv
import os
import warnings
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from ace_counterfactuals.core.base.settings import to_dict
from ace_counterfactuals.core.runs.begin import begin as begin_run
from ace_counterfactuals.core.runs.config import MainConfig, RunConfig
from ace_counterfactuals.core.runs.described import described_flags
from ace_counterfactuals.core.runs.layout import Pictures, ResultFolder, decoded, fingerprint
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.records import KINDS, Outcome, Record
from ace_counterfactuals.core.runs.status import run_log
from ace_counterfactuals.core.runs.tables import write_tables
from ace_counterfactuals.core.runs.verify import verify
from tests.support.toys import tree

DRAWN, DOT = ("CF", "Noise", "SM"), Image.new("RGB", (1, 1))


def picture(index: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (index % 256, index // 256, 7))


def record(index: int) -> Record:
    success = index % 3 == 0
    outcome = Outcome(int(success), success, True, success, False, 0.75, 0.25, 0.75, 0.0, 0.0)
    outcomes = dict.fromkeys(KINDS, outcome)
    return Record(index, f"{index}.png", True, index % 2, 0, 1, True, 0.75, 0.25, 0.5, outcomes,
                  pixels=fingerprint(picture(index)))  # fmt: skip


def write_chunk(results: ResultFolder, chunk: int, chunks: int, count: int) -> None:
    """What main.py does for a chunk, but for explaining."""
    config = MainConfig()
    config = replace(config, run=replace(config.run, chunk=chunk, chunks=chunks))
    described = {"flags": {"image_size": picture(0).height}, "weights": {}, "classes": None}
    begin_run(config, results, described)
    with hold(results.log, chunk, chunks), run_log(results.log, {"selected": count}) as log:
        for index in range(chunk, count, chunks):
            drawn = dict.fromkeys(KINDS, {"CF": picture(index), "Noise": picture(index), "SM": picture(index)})
            results.write(record(index), Pictures(picture(index), drawn))
            log([index], 0.5)
        write_tables(config, results, range(chunk, count, chunks), *results.read())


def in_children(work, count: int) -> list[int]:
    """The exit codes of as many processes at once."""
    pids = []
    for i in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads; a child has its own
            pid = os.fork()
        if pid == 0:
            try:
                work(i)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@pytest.mark.slow
def test_sixteen_processes_write_a_thousand_pictures_and_lose_none(tmp_path, monkeypatch):
    monkeypatch.setattr("ace_counterfactuals.core.runs.begin.refuse_other_settings", lambda *_: None)
    monkeypatch.setattr("ace_counterfactuals.core.runs.tables.draw_sheet", lambda *_: None)
    results, count, chunks = ResultFolder(tmp_path, "exp"), 1000, 16
    assert in_children(lambda chunk: write_chunk(results, chunk, chunks, count), chunks) == [0] * chunks
    finished, skipped = results.read()
    plain = [replace(found, files=record(0).files, settings="") for found in finished.values()]
    assert plain == [record(index) for index in range(count)] and not skipped
    config = replace(MainConfig(), run=RunConfig(merge_chunks=True))
    write_tables(config, results, range(count), finished, skipped)
    with open(results.root / "results.csv", newline="") as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(count))
    assert yaml.safe_load((results.root / "summary.yaml").read_text())["n"] == count
    rows = [row for path in results.log.glob("*.csv") for row in path.read_text().splitlines()[1:]]
    assert sorted(int(row.split(",")[0]) for row in rows) == list(range(count))
    assert len(list(results.log.glob("*.json"))) == chunks
    assert not [name for name in tree(tmp_path, without=()) if name.endswith((".tmp", ".lock"))]
    findings = verify(results)
    assert [finding for finding in findings if "sheet.png" not in finding.reason] == []


def test_processes_that_begin_one_folder_at_once_agree_on_its_settings(tmp_path):
    results = ResultFolder(tmp_path, "exp")

    def begin(i):
        try:
            begin_run(MainConfig(), results, {"flags": SETTINGS, "weights": {"model_path": str(i)}, "classes": None})
        except ValueError:
            os._exit(7)

    assert sorted(in_children(begin, 8)) == [0] + [7] * 7
    assert not list(results.root.rglob("*.tmp"))


SETTINGS = described_flags(to_dict(MainConfig()))


@pytest.mark.slow
def test_two_experiments_that_disagree_in_lockstep_leave_every_original_to_the_stranger(tmp_path):
    """Each waits for the other before every picture, and judges it otherwise."""
    count, pipes = 400, [os.pipe() for _ in range(2)]
    experiments = [ResultFolder(tmp_path, name) for name in ("one", "other")]
    for results in experiments:
        results.create()

    def work(i: int) -> None:
        for index in range(count):
            os.write(pipes[i][1], b".")
            os.read(pipes[1 - i][0], 1)
            judged = replace(record(index), label=i)
            experiments[i].write(judged, Pictures(picture(index), dict.fromkeys(KINDS, dict.fromkeys(DRAWN, DOT))))

    assert in_children(work, 2) == [0, 0]
    kept = {int(path.stem): fingerprint(decoded(path, picture(0).height)) for path in tmp_path.glob("Original/*/*.png")}
    assert kept == {index: fingerprint(picture(index)) for index in range(count)}
