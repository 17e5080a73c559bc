"""A finished run, made once, and copies of it."""

import shutil

import pytest

from ace_counterfactuals.core.base import atomic
from tests.support.refinery import RUN, Refinery


@pytest.fixture
def drawn():
    """Asked for by a test that looks at the picture of a sweep, which the others do without."""


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(atomic, "write_figure", lambda path, figure: None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    refinery = Refinery(tmp_path_factory.mktemp("finished"))
    refinery.run(save_float=True, **RUN)
    return refinery


@pytest.fixture
def refinery(finished, tmp_path):
    """A finished run in a folder of its own."""
    copy = Refinery.__new__(Refinery)
    copy.__dict__.update(finished.__dict__, output=tmp_path / "out")
    shutil.copytree(finished.output, copy.output)
    return copy
