"""One explanation of two pictures, and an empty result folder."""

import pytest

from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.runs.layout import ResultFolder
from tests.support.toys import ToyClassifier, pictures, toy_task


@pytest.fixture(scope="session")
def explanation():
    settings = {"attack_method": "GD", "attack_step": 100.0, "sampling_dilation": 1, "sampling_inpaint": 0.9}
    return explain(pictures(2), toy_task(classifier=ToyClassifier(binary=True), **settings), indices=[3, 4])


@pytest.fixture
def results(tmp_path):
    folder = ResultFolder(tmp_path, "exp")
    folder.create()
    return folder
