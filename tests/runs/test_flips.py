"""verify-results.py finds each single bit that is not as it was written, what is exchanged, lost or added."""

import os
import random
import shutil

import pytest
from PIL import Image

from ace_counterfactuals.core.runs.described import read_raw, settings_digest
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.records import Record
from ace_counterfactuals.core.runs.verify import Checked, Finding, check_original, check_record, verify
from tests.support.toys import SIDE, tree

WHOLE = {"save_float": True}


@pytest.fixture
def results(copy):
    return ResultFolder(copy.output, "exp")


def flip(path, rng) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def told(results, path) -> list[str]:
    """What is found of picture 2 while a bit of one of its files is another."""
    settings = settings_digest(read_raw(results.root / "config.yaml"))
    record = check_record(results, SIDE, settings, results.record(2))
    if isinstance(record, Finding):
        return [record.reason]
    checked = Checked({2: record}, {}, {}, {"image_size": SIDE})
    return [finding.reason for finding in check_original(results, checked, 2)]


def missed(results, paths, count) -> list[str]:
    """Flips of which no finding begins with the file, of ``count`` in turn over the files."""
    rng, left = random.Random(0), []
    for i in range(count):
        path = paths[i % len(paths)]
        before = path.read_bytes()
        flip(path, rng)
        if not any(reason.startswith(f"{path}: ") for reason in told(results, path)):
            left.append(f"flip {i} of {path}")
        path.write_bytes(before)
    assert told(results, results.record(2)) == []
    return left


def test_each_of_400_flips_in_a_record_is_found(results):
    assert missed(results, [results.record(2)], 400) == []


def test_each_of_400_flips_in_stored_pictures_is_found(results, copy):
    pictures = [*results.root.rglob("0000002.png"), *(copy.output / "Original").rglob("0000002.png")]
    assert len(pictures) == 7
    assert missed(results, pictures, 400) == []


def test_flips_in_info_and_float_files_are_found(results):
    files = [*results.root.rglob("0000002.txt"), *results.root.rglob("0000002.npy")]
    assert len(files) == 3
    assert missed(results, files, 100) == []


@pytest.mark.parametrize("name", ["config.yaml", "results.csv", "summary.yaml", "sheet.png"])
def test_a_flip_in_a_table_or_the_settings_is_found_and_only_that_file_is_moved(results, name):
    rng, path, missed = random.Random(name), results.root / name, []
    before, there = path.read_bytes(), tree(results.root)
    for i in range(15):
        flip(path, rng)
        reasons = [finding.reason for finding in verify(results)]
        if len(reasons) != 1 or not reasons[0].startswith(str(path)):
            missed.append((i, reasons))
        left = tree(results.root)
        assert there.keys() - left.keys() <= {name, "results.csv" if name == "summary.yaml" else name}
        (results.root / "results.csv").write_bytes(there["results.csv"])
        path.write_bytes(before)
    assert missed == []


def exchange(*paths) -> None:
    one, other = (path.read_bytes() for path in paths)
    paths[0].write_bytes(other)
    paths[1].write_bytes(one)


def both(results, pattern):
    return [next(results.output.glob(f"{pattern}/000000{i}.*")) for i in (2, 3)]


SPOILT = {
    "exchanged masks": lambda r: exchange(*both(r, "Results/exp/explanation/*/*/SM")),
    "exchanged noise": lambda r: exchange(*both(r, "Results/exp/pre-explanation/*/*/Noise")),
    "exchanged originals": lambda r: exchange(*both(r, "Original/*")),
    "exchanged records": lambda r: exchange(r.record(2), r.record(3)),
    "a missing table": lambda r: (r.root / "results.csv").unlink(),
    "a missing summary": lambda r: (r.root / "summary.yaml").unlink(),
    "a missing sheet": lambda r: (r.root / "sheet.png").unlink(),
    "a foreign sheet": lambda r: shutil.copy(both(r, "Original/*")[0], r.root / "sheet.png"),
    "missing settings": lambda r: (r.root / "config.yaml").unlink(),
    "a missing original": lambda r: both(r, "Original/*")[0].unlink(),
    "a file among those of a picture": lambda r: shutil.copy(
        r.root / "summary.yaml", r.path("explanation", "CC/CCF", "SM", 2).with_suffix(".txt")
    ),
    "a pipe in place of a picture": lambda r: (
        (path := both(r, "Results/exp/explanation/*/*/CF")[0]).unlink() or os.mkfifo(path)
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_exchanged_lost_or_added_is_found_and_mended_by_the_same_command(copy, whole, results, spoilt):
    SPOILT[spoilt](results)
    findings = verify(results)
    assert findings and all(finding.reason.startswith(str(copy.output)) for finding in findings)
    assert all(finding.remedy for finding in findings)
    copy.run(batch_size=1, save_float=True)
    assert tree(copy.output) == tree(whole.output)
    assert verify(results) == []


def test_settings_of_another_experiment_are_found(copy, whole, results):
    copy.run(batch_size=1, exp_name="other", attack_step=4)
    exchange(results.root / "config.yaml", copy.results("other") / "config.yaml")
    assert [f.reason for f in verify(results)] == [
        f"{results.root / 'config.yaml'}: is of another experiment than the records"
    ]
    copy.run(batch_size=1, save_float=True)
    assert tree(results.root) == tree(whole.results())


def test_a_record_of_another_experiment_is_found(copy, results):
    copy.run(batch_size=1, exp_name="other", attack_step=4)
    shutil.copy(copy.results("other") / "records/0000002.json", results.record(2))
    assert verify(results)[0].reason == f"{results.record(2)}: settings: is of another experiment"


def test_records_older_than_their_digests_continue_and_are_told_not_to_be_covered(copy, whole, results, notes):
    for path in results.record_paths():
        record, _ = results.read()
        values = record[int(path.stem)]
        path.write_bytes(Record(**vars(values) | {"files": {}, "settings": ""}).to_bytes())
        text = path.read_text()
        path.write_text(text[: text.rindex(',\n "sha256"')] + "\n}\n")
    with Image.open(results.root / "sheet.png") as sheet:
        sheet.copy().save(results.root / "sheet.png")
    config = results.root / "config.yaml"
    config.write_text(config.read_text().rpartition("sha256: ")[0])
    before = tree(copy.output, without=("log", "sheet.png"))
    assert verify(results) == [] and "6 of 6 records are older than digests" in notes.text
    notes.clear()
    copy.run(batch_size=1, save_float=True)
    assert "6 of 6 pictures are finished already" in notes.text
    assert tree(copy.output, without=("log", "sheet.png")) == before


@pytest.mark.long
def test_after_verifying_and_the_same_command_flipped_trees_are_whole_again(copy, whole, results):
    rng = random.Random(1)
    for _ in range(400):
        files = [path for path in sorted(copy.output.rglob("*")) if path.is_file() and "log" not in path.parts]
        flip(path := rng.choice(files), rng)
        assert any(finding.reason.startswith(str(path)) for finding in verify(results)), path
        copy.run(batch_size=1, save_float=True)
        assert tree(copy.output) == tree(whole.output), path
