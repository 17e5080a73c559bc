"""verify-results.py finds what is damaged, and the next run mends it."""

import json
import os
import shutil

import pytest
from PIL import Image

from ace_counterfactuals.core.cli.verify import main
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.locks import Locked, hold
from ace_counterfactuals.core.runs.verify import verify
from tests.support.toys import Workshop, exit_code, tree

WHOLE = {"save_float": True}


def found(workshop):
    return [finding.reason for finding in verify(ResultFolder(workshop.output, "exp"))]


def only(workshop, pattern):
    (path,) = workshop.output.glob(pattern)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def change_record(path, **changes):
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **changes}))


RESULTS = "Results/exp"
DAMAGE = {
    "a truncated picture": ("explanation/*/*/CF/{}.png", cut, "not as it was written"),
    "a truncated mask": ("pre-explanation/*/*/SM/{}.png", cut, "not as it was written"),
    "an empty picture": ("explanation/*/*/Noise/{}.png", lambda p: p.write_bytes(b""), "not as it was written"),
    "a truncated Info": ("explanation/*/*/Info/{}.txt", cut, "not as it was written"),
    "a missing picture": ("pre-explanation/*/*/CF/{}.png", os.unlink, "is missing"),
    "a missing Info": ("pre-explanation/*/*/Info/{}.txt", os.unlink, "is missing"),
    "a truncated record": ("records/{}.json", cut, "is not JSON"),
    "a picture of another size": (
        "explanation/*/*/CF/{}.png",
        lambda p: Image.new("RGB", (4, 4)).save(p),
        "is not as it was written",
    ),
    "another picture": (
        "explanation/*/*/CF/{}.png",
        lambda p: Image.new("RGB", (8, 8)).save(p),
        "is not as it was written",
    ),
    "truncated floats": ("pre-explanation/*/*/CF/{}.npy", cut, "not as it was written"),
    "a truncated original": ("../../Original/*/{}.png", cut, "cannot be decoded"),
    "a missing original": ("../../Original/*/{}.png", os.unlink, "is missing"),
}


def test_a_whole_folder_is_found_to_be_one_and_stays_as_it_is(copy, whole):
    assert found(copy) == []
    assert tree(copy.output) == tree(whole.output)


@pytest.mark.parametrize("kinds", [list(DAMAGE)[:6], list(DAMAGE)[6:]], ids=", ".join)
def test_damage_is_named_moved_aside_and_mended_by_the_next_run(copy, whole, kinds):
    """A picture for each kind of it."""
    for index, kind in enumerate(kinds):
        pattern, spoil, _ = DAMAGE[kind]
        spoil(only(copy, f"{RESULTS}/{pattern.format(f'{index:07d}')}"))
    told = found(copy)
    assert len(told) == len(kinds)
    for index, kind in enumerate(kinds):
        (line,) = [line for line in told if f"{index:07d}" in line]
        assert DAMAGE[kind][2] in line
        assert (copy.results() / f"records/{index:07d}.json").exists() == ("original" in kind)
        assert list((copy.results() / "log/damaged").rglob(f"{index:07d}.json")) or "original" in kind
    copy.run(batch_size=1, save_float=True)
    assert tree(copy.output) == tree(whole.output)
    assert found(copy) == []


def test_an_original_of_another_picture_is_found(copy):
    Image.new("RGB", (8, 8)).save(only(copy, "Original/*/0000002.png"))
    assert "is another picture than was explained" in found(copy)[0]


def test_a_half_deleted_tree_is_mended_by_the_next_run(copy, whole):
    shutil.rmtree(copy.results() / "explanation")
    shutil.rmtree(copy.output / "Original/Correct")
    (copy.results() / "summary.yaml").unlink()
    assert len(found(copy)) == 6 + 1
    copy.run(batch_size=1, save_float=True)
    assert tree(copy.output) == tree(whole.output)


def test_a_twin_in_another_folder_is_found(copy, whole):
    path = only(copy, f"{RESULTS}/explanation/*/*/CF/0000002.png")
    other = "CCF" if path.parts[-3] == "ICF" else "ICF"
    twin = path.parents[2] / other / "CF/0000002.png"
    shutil.copy(path, twin)
    assert found(copy) == [f"{twin}: belongs to no finished picture"]
    copy.run(batch_size=1, save_float=True)
    assert tree(copy.output) == tree(whole.output)


@pytest.mark.parametrize("name", ["explanation/CC/CCF/CF/0000099.png", "records/notes.txt", ".summary.yaml.vm-1.tmp"])
def test_a_stray_file_is_found_and_moved_aside(copy, whole, name):
    (copy.results() / name).write_bytes(b"stray")
    assert found(copy) == [f"{copy.results() / name}: belongs to no finished picture"]
    assert tree(copy.output) == tree(whole.output)


def test_a_picture_whose_record_is_gone_is_found(copy, whole):
    (copy.results() / "records/0000002.json").unlink()
    told = found(copy)
    assert len(told) == 10 and "picture 0000002 is not as its record says" in told[-1]
    copy.run(batch_size=1, save_float=True)
    assert tree(copy.output) == tree(whole.output)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("results.csv", b"boot/000.png", b"boot/999.png"),
        ("summary.yaml", b"n: 6", b"n: 7"),
        ("summary.yaml", b"n", b""),
    ],
)
def test_tables_that_say_otherwise_than_the_records_are_found(copy, whole, name, old, new):
    path = copy.results() / name
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert len(found(copy)) == 1 and not path.exists()
    copy.run(batch_size=1, save_float=True)
    assert tree(copy.output) == tree(whole.output)


def test_tables_of_a_part_of_the_pictures_are_no_damage(copy):
    copy.run(num_samples=2)
    copy.run(chunk=1, chunks=3)
    assert found(copy) == []


def test_tables_that_are_missing_are_told(copy):
    for name in ("summary.yaml", "results.csv", "sheet.png"):
        (copy.results() / name).unlink()
    assert found(copy) == [f"{copy.results() / 'results.csv'}: is missing"]


def test_a_skipped_picture_and_a_run_without_pictures_are_no_damage(tmp_path):
    workshop = Workshop(tmp_path)
    (workshop.data / "boot/000.png").write_bytes(b"no picture")
    workshop.run(save_images=False)
    assert found(workshop) == []


def test_a_folder_that_somebody_works_on_is_refused(copy):
    results = ResultFolder(copy.output, "exp")
    with hold(results.log, 1, 3), pytest.raises(Locked):
        verify(results)


def test_a_folder_of_the_original_program_is_refused(copy):
    shutil.rmtree(copy.results() / "records")
    with pytest.raises(ValueError, match="has no records; it is not a folder of main.py"):
        found(copy)


def test_an_experiment_that_is_not_there_is_named(copy):
    with pytest.raises(ValueError, match=r"exp_name exq: no such experiment in .*; did you mean exp\?"):
        verify(ResultFolder(copy.output, "exq"))


def test_the_script_says_what_it_found_by_its_exit_code(copy, capsys):
    arguments = [str(copy.output), "exp"]
    assert main(arguments) == 0 and "all is as its records say" in capsys.readouterr().out
    cut(only(copy, f"{RESULTS}/explanation/*/*/CF/0000002.png"))
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "0000002.png: is not as it was written; the same command makes it again" in printed
    assert "1 found; what was damaged lies in" in printed
    assert exit_code(lambda: main([str(copy.output)])) == 2
