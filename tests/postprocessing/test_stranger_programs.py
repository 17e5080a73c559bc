"""The programs that write into a folder whose parts a stranger made links: one line, and nothing changed elsewhere."""

import shutil

import pytest

from ace_counterfactuals.core.cli import verify
from tests.support.refinery import OWN
from tests.support.toys import exit_code, tree


@pytest.fixture
def linked(refinery, tmp_path):
    """Function: a part of the output folder is moved away, and a link to it put in its place."""

    def link(place: str):
        part, elsewhere = refinery.output / place, tmp_path / "elsewhere"
        if part.exists():
            shutil.move(part, elsewhere)
        else:
            elsewhere.mkdir()
        part.symlink_to(elsewhere)
        return part, tree(elsewhere, without=())

    return link


WRITTEN = [("main", "Results"), ("main", "Original"), ("main", "Results/exp/records")]
WRITTEN += [("postprocessing", "Results/exp"), ("verify", "Results/exp/records"), ("verify", "Results/exp/log")]


@pytest.mark.parametrize(("program", "place"), WRITTEN)
def test_a_program_changes_nothing_behind_a_strangers_link(program, place, refinery, linked, tmp_path, capsys):
    next((refinery.results() / "records").glob("*.json")).write_text("{}")
    part, before = linked(place)
    programs = {
        "main": lambda: refinery.run(save_float=True, overwrite=True),
        "postprocessing": refinery.refine,
        "verify": lambda: verify.main([str(refinery.output), "exp"]),
    }
    assert exit_code(programs[program]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (
        f"{part}: is a link to {tmp_path / 'elsewhere'}" in line and f"make {refinery.output} itself the link" in line
    )
    assert tree(tmp_path / "elsewhere", without=()) == before


def test_a_setting_is_not_refined_into_a_strangers_link(refinery, linked, tmp_path, capsys):
    part, before = linked(f"Results/exp/{OWN}")
    assert f"{part}: is a link to" in refinery.error(capsys)
    assert tree(tmp_path / "elsewhere", without=()) == before


def test_a_sweep_is_not_written_over_a_strangers_link(refinery, tmp_path, capsys):
    (tmp_path / "theirs.csv").write_text("theirs")
    (refinery.results() / "sweep.csv").symlink_to(tmp_path / "theirs.csv")
    assert "sweep.csv: is a link to" in refinery.error(capsys)
    assert (tmp_path / "theirs.csv").read_text() == "theirs"
