"""A finished run, made once, and copies of it."""

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
    return finished.copy(tmp_path)


@pytest.fixture(scope="session")
def refined(finished, tmp_path_factory):
    """A finished run that was refined by its own settings, to be looked at or copied."""
    refinery = finished.copy(tmp_path_factory.mktemp("refined"))
    refinery.refine()
    return refinery


@pytest.fixture
def again(refined, tmp_path):
    """The same in a folder of its own."""
    return refined.copy(tmp_path)
