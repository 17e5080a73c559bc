"""A value of another kind in a file of a result folder is one line: the file, the field, what was wanted."""

import json
import os
import struct

import numpy as np
import pytest
import yaml
from PIL import Image

from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.core.cli.verify import main as verify
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.runs import locks
from ace_counterfactuals.core.runs.described import read_config
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.recording import read_stored
from ace_counterfactuals.core.runs.records import content_digest, read_record
from ace_counterfactuals.core.runs.status import status
from ace_counterfactuals.core.runs.tables import read_summary, read_table


def refusal(read, *given) -> str:
    with pytest.raises(ValueError) as refused:
        read(*given)
    return str(refused.value)


def put(values: dict, place: str, value) -> None:
    """The value at a dotted place."""
    *way, last = place.split(".")
    for name in way:
        values = values[name]
    values[last] = value


RECORD = [
    ("outcomes.explanation.l1", None, "wanted a number, found null"),
    ("outcomes.explanation.l_inf", 1e309, "wanted a number, found Infinity"),
    ("outcomes.explanation", [], "wanted named values, found a list"),
    ("file", 5, "wanted text, found 5"),
    ("label", "x", 'wanted a whole number from -1 to 2147483648, found "x"'),
    ("top5", {}, "wanted a list, found a dict"),
    ("iterations", -1, "wanted a whole number from 0 to 9007199254740992, found -1"),
]


@pytest.mark.parametrize(("place", "value", "told"), RECORD)
def test_a_value_of_a_stranger_in_a_record_is_told(copy, place, value, told):
    path = copy.results() / "records/0000002.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    put(values, place, value)
    path.write_text(json.dumps(values | {"sha256": content_digest(values)}))
    assert refusal(read_record, path) == f"{path}: {place}: {told}"


CONFIG = [
    ("flags", [], "flags: wanted named values, found a list"),
    ("weights", None, "weights: wanted named values, found null"),
    ("classes", 5, "classes: wanted"),
    ("flags.image_size", -5, "flags.image_size: -5: out of range, wanted >= 8"),
    ("flags.attack_step", float("inf"), "flags.attack_step: wanted"),
    ("flags.seed", [1], "flags.seed: wanted"),
    ("batch_size", 0, "batch_size: wanted a whole number from 1"),
]


@pytest.mark.parametrize(("place", "value", "told"), CONFIG)
def test_a_value_of_a_stranger_in_the_settings_is_told(copy, place, value, told):
    path = copy.results() / "config.yaml"
    values = yaml.safe_load(path.read_text())
    put(values, place, value)
    path.write_text(yaml.safe_dump(values))
    assert refusal(read_config, path.parent).startswith(f"{path}: {told}")


@pytest.mark.parametrize(("place", "value"), [("n", 0), ("explanation", {}), ("explanation.cf", "x"), ("skipped", -1)])
def test_a_value_of_a_stranger_in_the_summary_is_told(copy, place, value):
    path = copy.results() / "summary.yaml"
    values = yaml.safe_load(path.read_text())
    put(values, place, value)
    path.write_text(yaml.safe_dump(values))
    assert refusal(read_summary, path).startswith(f"{path}: {place}: ")


@pytest.mark.parametrize("text", ["index\n1,2\n", "other\n1\n", "a,index\n1\n", 'index\n"' + "x" * 200_000])
def test_a_table_of_a_stranger_is_told(copy, text):
    path = copy.results() / "results.csv"
    path.write_text(text)
    assert refusal(lambda: list(read_table(path, "index"))).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["5", "[]", "{}", '{"pid": "x"}', "[" * 100_000, "\xff"])
def test_a_log_of_a_stranger_is_left_out_and_told(copy, notes, text):
    path = copy.results() / "log/9.json"
    path.write_bytes(text.encode("latin-1"))
    assert "6 of 6 pictures done" in status(ResultFolder(copy.output, "exp"))
    assert f"{path}: " in notes.text and "this log is left out" in notes.text


@pytest.mark.parametrize(
    "values", [{"pid": "x"}, {"pid": -1}, {"pid": 10**30}, {"chunks": 0}, {"other": 1}, [], "[" * 50_000]
)
def test_a_lock_of_a_stranger_counts_as_one_that_says_nothing(copy, values):
    path = copy.results() / "log/chunk-0-of-1.lock"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    (holder,) = locks.holders(path.parent)
    assert holder.pid == 0 and holder.host == "an unknown host" and holder.alive() is None


def test_a_pipe_in_place_of_a_lock_is_taken_over(copy, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    os.mkfifo(path := copy.results() / "log/chunk-0-of-1.lock")
    with locks.hold(path.parent):
        assert path.is_file()


def npy(header: str, body: bytes = b"") -> bytes:
    padded = header.ljust(118 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("latin-1") + body


NPY = {
    "5 TiB": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (3, 1000000, 900000), }"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 8), }", b"cos\nsystem\n"),
    "nested": npy("(" * 117),
    "a negative size": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (3, -8, -8), }", bytes(384)),
    "no pixels": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (3, 0, 8), }"),
    "no number": npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1, 1), }", b"\xff\xff"),
    "another version": b"\x93NUMPY\x03\x00" + bytes(100),
}


@pytest.mark.parametrize("name", NPY)
def test_floats_of_a_stranger_are_refused_without_memory(tmp_path, name):
    path = tmp_path / "x.npy"
    path.write_bytes(NPY[name])
    with pytest.raises(UnreadableImage, match=f"^{path}: unreadable picture: "):
        read_stored(path)


def test_floats_that_are_whole_are_read(tmp_path):
    np.save(path := tmp_path / "x.npy", np.full((3, 2, 2), 0.5, np.float32))
    assert read_stored(path).tolist() == np.full((3, 2, 2), 0.5).tolist()


def test_a_picture_of_a_stranger_that_is_huge_is_found_unread(copy, capsys):
    path = next(copy.results().glob("explanation/*/*/CF/0000002.png"))
    original = next((copy.output / "Original").rglob("0000002.png"))
    for place in (path, original):
        Image.new("1", (20_000, 20_000)).save(place)
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: verify([str(copy.output), "exp"]))
    printed = capsys.readouterr().out
    assert ended.value.code == 1
    assert f"{path}: is not as it was written" in printed
    assert f"{original}: cannot be decoded (Image size (400000000 pixels) exceeds limit" in printed


def test_a_damaged_picture_that_the_sheet_shows_is_named(copy):
    path = next(copy.results().glob("explanation/*/*/CF/0000002.png"))
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ValueError, match=f"^{path}: unreadable picture"):
        copy.run(batch_size=1)
