"""What is a problem and what is not, and how figures are put, without running anything."""

import pytest

from ace_counterfactuals.core.preflight import binomial_tail, guessing, judge_predictions, report
from ace_counterfactuals.core.preflight.model import Cost
from ace_counterfactuals.core.preflight.report import Report, in_bytes, in_time, part_of


def test_a_classifier_that_is_right_on_few_pictures_is_not_called_a_guess():
    found = Report()
    judge_predictions(found, [0, 1, 0], [0, 1, 0], 2, ())
    assert not found.problems and "accuracy 100.0% on n = 3" in found.sections["classifier"][0]


def test_guessing_knows_how_often_a_label_occurs():
    assert guessing([(0, 1), (1, 1), (1, 1), (1, 1)], 2) == 0.75
    assert guessing([(1, 1), (1, 0)], 2) is None
    assert guessing([(1, 1), (1, 0)], 4) == 0.25
    assert guessing([], 4) is None


def test_the_memory_of_a_batch_grows_by_its_pictures():
    assert Cost(1.0, 1.0, batch=1, base=3, growth=2).memory(4) == 11
    assert Cost(1.0, 1.0).memory(4) == 0


def test_numbers_read_well():
    assert [in_time(s) for s in (0.0123, 3.21, 600, 36000, 1e6)] == ["12 ms", "3.2 s", "10 min", "10 h", "12 days"]
    assert [in_bytes(n) for n in (12, 2048, 5 * 2**20, 2**40)] == ["12 B", "2.0 KiB", "5.0 MiB", "1.0 TiB"]
    assert binomial_tail(0, 5, 0.3) == pytest.approx(1) and binomial_tail(5, 5, 0.5) == pytest.approx(1 / 32)


def test_a_part_of_the_time_left_ends_before_it(monkeypatch):
    monkeypatch.setattr(report.time, "monotonic", lambda: 2.0)
    assert part_of(12.0, 0.5) == 7.0 and part_of(12.0, 1.0) == 12.0
