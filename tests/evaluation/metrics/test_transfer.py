"""Transfer to unseen classifiers: the figure by hand, and compute_transfer.py from flags to the printed line."""

import pytest
import torch

from ace_counterfactuals.core.evaluation.intervals import wilson
from ace_counterfactuals.core.evaluation.metrics.transfer import Verdicts, judge, transfer


def logits_of(*predictions: int, classes: int = 3) -> torch.Tensor:
    return 4 * torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


def test_transfer_is_the_share_of_flips_that_the_unseen_classifier_follows():
    """Of five pictures, the third did not flip, and the fourth's original is another thing to the unseen classifier."""
    prediction, target = torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64)
    moved = torch.tensor([1, 1, 0, 1, 1])
    found = judge(prediction, moved, target, logits_of(0, 0, 0, 2, 0), logits_of(1, 2, 1, 1, 1))
    assert found.counted.tolist() == [True, True, False, False, True]
    figure = transfer([found])
    assert (figure.share, figure.n, figure.pictures) == (pytest.approx(2 / 3), 3, 3)
    certain, other = torch.tensor([4.0, 0, 0]).softmax(0).tolist()[:2]
    assert figure.movement == pytest.approx(2 / 3 * (certain - other))
    assert (figure.low, figure.high) == pytest.approx(wilson(2, 3))


def test_transfer_of_untargeted_counterfactuals_is_to_where_the_attacked_classifier_went():
    free = torch.full((3,), -1)
    found = judge(torch.tensor([0, 0, 0]), torch.tensor([1, 2, 0]), free, logits_of(0, 0, 0), logits_of(1, 1, 1))
    assert found.counted.tolist() == [True, True, False]
    assert found.reached.tolist()[:2] == [True, False]


def test_transfer_of_a_binary_classifier_goes_by_the_sign_of_its_logit():
    found = judge(
        torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([1, 0]),
        torch.tensor([-2.0, 2.0]), torch.tensor([3.0, 1.0]),
    )  # fmt: skip
    assert found.counted.all() and found.reached.tolist() == [True, False]
    rise = torch.tensor([3.0]).sigmoid() - torch.tensor([-2.0]).sigmoid()
    assert found.movement[0].item() == pytest.approx(rise.item())


def test_a_picture_that_was_at_its_target_from_the_start_does_not_count_for_transfer():
    one = torch.tensor([1])
    assert not judge(one, one, one, logits_of(1), logits_of(1)).counted.any()


def test_transfer_of_no_picture_has_no_figure():
    none = torch.zeros(0, dtype=torch.int64)
    figure = transfer([judge(none, none, none, torch.zeros(0, 3), torch.zeros(0, 3))])
    assert (figure.share, figure.low, figure.movement, figure.n) == (None, None, None, 0)


def test_the_pooled_interval_of_transfer_takes_a_picture_for_one_however_many_classifiers_judge_it():
    verdicts = Verdicts(torch.tensor([True] * 4), torch.tensor([True, True, True, False]), torch.zeros(4).double())
    alone, pooled = transfer([verdicts]), transfer([verdicts, verdicts])
    assert (pooled.n, pooled.pictures) == (8, 4)
    assert (pooled.share, pooled.low, pooled.high) == (alone.share, alone.low, alone.high)


def test_the_interval_of_a_share_is_wilsons():
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    low, high = wilson(0, 7)
    assert low == 0 and 0 < high < 1
