"""What is a problem and what is not, and how figures are put, without running anything."""

import pytest
import torch

from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.preflight.data import Budget, ClassifierCheck
from ace_counterfactuals.core.preflight.model import CostCheck
from ace_counterfactuals.core.preflight.report import Report, binomial_tail, in_bytes, in_time
from ace_counterfactuals.core.runs.config import MainConfig

CONFIG = parse(MainConfig, "", [])


def test_a_classifier_that_is_right_on_few_pictures_is_not_called_a_guess():
    check = ClassifierCheck(classes=2, names=None, labels=(0, 1, 0), predictions=(0, 1, 0))
    assert not list(Report(CONFIG, torch.device("cpu"), classifier=check).problems)


def test_chance_knows_how_often_a_label_occurs():
    assert ClassifierCheck(2, None, (0, 1, 1, 1), (1, 1, 1, 1)).chance == 0.75
    assert ClassifierCheck(2, None, (1, 1), (1, 0)).chance is None
    assert ClassifierCheck(4, None, (1, 1), (1, 0)).chance == 0.25
    assert ClassifierCheck(4, None, (-1, -1), (1, 0)).chance is None


def test_memory_near_the_limit_advises_checkpointing():
    cost = CostCheck(1.0, 1.0, iterations=2, batch=1, wanted=4, base=2**30, growth=2**30, limit=5 * 2**30)
    report = Report(CONFIG, torch.device("cpu"), cost=cost)
    assert report.problems == [
        "4 pictures at once take about 5.0 GiB of 5.0 GiB of memory; "
        "give --attack_joint_checkpoint True, or a smaller --batch_size"
    ]
    report.cost = CostCheck(1.0, 1.0, iterations=2, batch=1, wanted=1, base=2**30, growth=2**30, limit=5 * 2**30)
    assert report.problems == []


def test_numbers_read_well():
    assert [in_time(s) for s in (0.0123, 3.21, 600, 36000, 1e6)] == ["12 ms", "3.2 s", "10 min", "10 h", "12 days"]
    assert [in_bytes(n) for n in (12, 2048, 5 * 2**20, 2**40)] == ["12 B", "2.0 KiB", "5.0 MiB", "1.0 TiB"]
    assert binomial_tail(0, 5, 0.3) == pytest.approx(1) and binomial_tail(5, 5, 0.5) == pytest.approx(1 / 32)


def test_a_budget_ends_and_can_be_shared():
    now = 0.0
    budget = Budget(10, lambda: now)
    part = budget.share(0.5)
    assert (budget.left, part.left) == (10, 5)
    now = 7.0
    assert (budget.left, part.left) == (3, 0)
