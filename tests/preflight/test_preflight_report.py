"""What is a problem and what is not, and how figures are put, without running anything."""

import numpy as np
import pytest

from ace_counterfactuals.core.base.notices import in_time
from ace_counterfactuals.core.preflight import balanced_accuracy, guessing, judge_predictions, report
from ace_counterfactuals.core.preflight.model import Cost
from ace_counterfactuals.core.preflight.report import Report, part_of


def judged(labels, predictions, classes=2):
    found = Report()
    judge_predictions(found, labels, predictions, classes, ())
    return found


def test_a_classifier_that_is_right_on_few_pictures_is_not_called_a_guess():
    found = judged([0, 1, 0], [0, 1, 0])
    assert not found.problems and found.sections["classifier"][0] == "accuracy 100.0% on n = 3 drawn from the whole set"


def test_a_skewed_folder_neither_makes_a_good_classifier_a_guess_nor_a_constant_one_good():
    """Of nine pictures seven are of one class, so that its name alone is right on 77.8 %."""
    labels = [0] * 7 + [1] * 2
    assert not judged(labels, [0] * 5 + [1] * 2 + [1, 1]).problems  # 77.8 %, and both of the rare class
    (problem,) = judged(labels, [0] * 9).problems
    assert "balanced accuracy near chance: 50.0% of 9 pictures, where guessing is right on 50%" in problem


def test_a_classifier_of_many_classes_that_names_others_than_the_pictures_is_near_chance():
    assert judged([0, 1] * 10, [*range(2, 22)], 1000).problems
    assert not judged([0, 1] * 10, [0, 1] * 5 + [*range(2, 12)], 1000).problems  # half of them, far from 1 in 1000


@pytest.mark.parametrize(("counts", "shares"), [((57, 7), (0.9, 0.6)), ((6, 3), (0.8, 0.7)), ((6,) * 10, (0.9,) * 10)])
def test_the_interval_of_balanced_accuracy_holds_the_truth_as_often_as_it_says(counts, shares):
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        right = rng.binomial(counts, shares)
        rows = [(k, k if i < right[k] else -1) for k, n in enumerate(counts) for i in range(n)]
        _, low, high = balanced_accuracy(rows)
        held += low <= np.mean(shares) <= high
    assert held / 300 > 0.92  # 95 % and three standard deviations of 300 draws below it


def test_guessing_knows_how_many_labels_occur_and_how_often_one_of_them_is_named():
    assert guessing([(0, 1), (1, 1), (1, 1), (1, 1)], 2) == 0.5
    assert guessing([(0, 7), (1, 1)], 1000) == 0.25
    assert guessing([(1, 1), (1, 0)], 2) is None
    assert guessing([(1, 1), (1, 0)], 4) == 0.25
    assert guessing([], 4) is None


def test_the_memory_of_a_batch_grows_by_its_pictures():
    assert Cost(1.0, 1.0, batch=1, base=3, growth=2).memory(4) == 11
    assert Cost(1.0, 1.0).memory(4) == 0


def test_numbers_read_well():
    assert [in_time(s) for s in (0.0123, 3.21, 600, 36000, 1e6)] == ["12 ms", "3.2 s", "10 min", "10 h", "12 days"]


def test_a_part_of_the_time_left_ends_before_it(monkeypatch):
    monkeypatch.setattr(report.time, "monotonic", lambda: 2.0)
    assert part_of(12.0, 0.5) == 7.0 and part_of(12.0, 1.0) == 12.0
