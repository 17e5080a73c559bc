"""One explanation of two pictures, an empty result folder, and a finished run with its copies."""

import pytest

from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.runs.layout import ResultFolder
from tests.support.toys import ToyClassifier, Workshop, pictures, toy_task


@pytest.fixture(scope="session")
def explanation():
    settings = {"attack_method": "GD", "attack_step": 100.0, "sampling_dilation": 1, "sampling_inpaint": 0.9}
    return explain(pictures(2), toy_task(classifier=ToyClassifier(binary=True), **settings), indices=[3, 4])


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    """A finished run of six pictures, one at a time; a module's WHOLE are further flags."""
    workshop = Workshop(tmp_path_factory.mktemp("whole"))
    workshop.run(batch_size=1, **getattr(request.module, "WHOLE", {}))
    return workshop


@pytest.fixture
def copy(whole, tmp_path):
    """The same with a result folder of its own to spoil."""
    return whole.copy(tmp_path)


@pytest.fixture
def results(tmp_path):
    folder = ResultFolder(tmp_path, "exp")
    folder.create()
    return folder
