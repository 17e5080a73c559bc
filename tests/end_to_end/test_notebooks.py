"""The notebooks of examples/ run from top to bottom, and are kept without what they print."""

import json

import matplotlib
import pytest

from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(path):
    """The sources of its code cells."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@each
def test_a_notebook_is_kept_without_outputs_and_in_the_format_that_editors_read(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        assert cell["id"] and cell["cell_type"] in ("code", "markdown")
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None


@pytest.mark.slow
@each
def test_a_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    matplotlib.use("agg")
    names = {}
    for number, code in enumerate(code_of(path)):
        exec(compile(code, f"{path.name}, code cell {number}", "exec"), names)
    assert names["found"]
