"""A figure says what keeps it from meaning what it says, and its interval stays where the figure can be."""

import numpy as np
import pytest

from ace_counterfactuals.core.evaluation.metric import all_metrics
from ace_counterfactuals.core.evaluation.metrics import cd
from ace_counterfactuals.core.evaluation.metrics.frechet import few_notes

QUANTITIES = {quantity.key: quantity for metric in all_metrics() for quantity in metric.quantities}
RNG = np.random.default_rng(0)
TRAINING = cd.correlations(RNG.random((50, 4)) > 0.5, query=1)


def decided(constant: int | None = None) -> list[np.ndarray]:
    """Decisions on 30 originals and counterfactuals, of which one attribute may never change."""
    before, after = RNG.random((2, 30, 4)) > 0.5
    if constant is not None:
        after[:, constant] = before[:, constant]
    return [before, after]


def test_cd_of_an_explained_attribute_that_never_changes_says_so():
    figure = cd.figure_of(decided(constant=1), TRAINING, 1, seed=4)
    assert figure.notes == (
        "the oracle decides the explained attribute alike for all pictures: no correlation is defined",
    )
    assert figure.value == pytest.approx(np.abs(TRAINING).sum())


def test_cd_counts_the_attributes_that_never_change():
    assert cd.figure_of(decided(constant=2), TRAINING, 1, seed=4).notes[0].startswith("1 of 4 attributes never change")
    whole = cd.figure_of(decided(), TRAINING, 1, seed=4)
    assert whole.notes == () and whole.low < whole.value < whole.high


def test_few_pictures_are_said_beside_a_frechet_distance():
    assert "fewer than 2048 pictures" in few_notes(2047, 2048, is_fid=True)[0] and few_notes(2048, 2048, True) == ()
    assert "fewer pictures than the 64 features" in few_notes(63, 64, False)[0] and few_notes(64, 64, False) == ()


def test_two_pictures_have_a_mean_but_no_interval():
    figure = QUANTITIES["l1"].mean(np.array([0.1, 0.3]), "all", seed=4)
    assert (figure.value, figure.low, figure.n) == (pytest.approx(0.2), None, 2) and "fewer than 8" in figure.notes[0]


@pytest.mark.parametrize(
    ("key", "value", "bounds", "shown"),
    [
        ("fid", 1.0, (-3.0, 5.0), (0.0, 5.0)),
        ("s3", 0.9, (0.7, 1.1), (0.7, 1.0)),
        ("fid_infinity", -0.5, (-2.0, 1.0), (-0.5, 1.0)),
    ],
)
def test_an_interval_stays_within_what_the_figure_can_be(key, value, bounds, shown):
    figure = QUANTITIES[key].figure(value, bounds, population="all", n=9)
    assert (figure.low, figure.high) == shown
