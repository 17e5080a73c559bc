"""Targets, losses and distances are what the reference writes down."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from ace_counterfactuals.core.method.attacks import cross_entropy, margin
from ace_counterfactuals.core.method.objectives import (
    choose_targets,
    distance_gradient,
    distance_weight,
    predict,
    probabilities,
)

BINARY_LOGITS = torch.tensor([1.5, -0.5, 0.3, 0.0])
LOGITS = torch.tensor([[1.0, 2.0, 0.5], [3.0, -1.0, 0.0], [0.1, 0.2, 0.3]])


def test_a_binary_prediction_is_a_positive_logit():
    assert predict(BINARY_LOGITS).tolist() == [1, 0, 1, 0]


def test_a_prediction_among_more_classes_is_the_largest_logit():
    assert predict(LOGITS).tolist() == [1, 0, 2]


def test_probabilities_sum_to_one_and_are_sigmoid_or_softmax():
    binary, many = probabilities(BINARY_LOGITS), probabilities(LOGITS)
    torch.testing.assert_close(binary.sum(1), torch.ones(4))
    torch.testing.assert_close(binary[:, 1], BINARY_LOGITS.sigmoid())
    torch.testing.assert_close(many, LOGITS.softmax(1))


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize("logits", [BINARY_LOGITS, LOGITS])
def test_a_loss_is_the_sum_over_pictures(loss, logits):
    target = torch.tensor([0, 1, 0, 1])[: len(logits)]
    alone = sum(loss(logits[i : i + 1], target[i : i + 1]) for i in range(len(logits)))
    torch.testing.assert_close(loss(logits, target), alone)


def test_the_classification_loss_is_the_negative_log_probability():
    for logits, target in ((BINARY_LOGITS, torch.tensor([0, 1, 1, 0])), (LOGITS, torch.tensor([0, 1, 2]))):
        expected = -probabilities(logits).gather(1, target[:, None]).log().sum()
        torch.testing.assert_close(cross_entropy(logits, target), expected)


def test_descending_the_untargeted_loss_lowers_the_predicted_classs_probability():
    logits = LOGITS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(-cross_entropy(logits, predict(logits)), logits)
    moved = LOGITS - 0.1 * slope
    predicted = predict(LOGITS)[:, None]
    assert (probabilities(moved).gather(1, predicted) < probabilities(LOGITS).gather(1, predicted)).all()


def test_the_margin_is_how_far_the_target_is_behind_the_best_other_class():
    assert margin(LOGITS[:1], torch.tensor([0])) == 1.0
    assert margin(LOGITS[:1], torch.tensor([2])) == 1.5


def test_the_margin_of_a_winning_target_is_zero():
    assert margin(LOGITS, predict(LOGITS)) == 0
    assert margin(BINARY_LOGITS, predict(BINARY_LOGITS)) == 0


def test_the_binary_margin_is_twice_the_logit_on_the_wrong_side():
    losses = [margin(BINARY_LOGITS[i : i + 1], torch.tensor([t])).item() for i, t in ((0, 0), (1, 1), (1, 0))]
    assert losses == [3.0, 1.0, 0.0]


def test_the_binary_margin_is_the_one_of_two_opposite_logits():
    two = torch.stack([-BINARY_LOGITS, BINARY_LOGITS], 1)
    for target in itertools.product((0, 1), repeat=4):
        target = torch.tensor(target)
        torch.testing.assert_close(margin(BINARY_LOGITS, target), margin(two, target))


PREDICTION, LABEL = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0])


def test_without_a_target_a_binary_prediction_is_flipped():
    assert choose_targets(PREDICTION, LABEL, -1, binary=True).tolist() == [1, 0, 1, 0]


def test_without_a_target_more_classes_are_untargeted():
    assert choose_targets(PREDICTION, LABEL, -1, binary=False) is None


@pytest.mark.parametrize("binary", [True, False])
def test_a_target_holds_for_all_but_the_misclassified_which_go_to_their_true_label(binary):
    prediction, label = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 0])
    assert choose_targets(prediction, label, 1, binary=binary).tolist() == [1, 0, 1]


def test_a_picture_of_unknown_label_is_sent_to_the_target():
    assert choose_targets(torch.tensor([0, 2]), torch.tensor([-1, -1]), 1, binary=False).tolist() == [1, 1]


@pytest.mark.parametrize(("dist_l1", "dist_l2"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
def test_the_distance_gradient_is_the_derivative_of_the_distances(dist_l1, dist_l2):
    image, adversary = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    moved = adversary.clone().requires_grad_()
    change = image - moved
    distance = dist_l1 * change.abs().sum() + dist_l2 * change.flatten(1).norm(dim=1).sum()
    (expected,) = torch.autograd.grad(distance, moved)
    found = distance_gradient(image, adversary, dist_l1=dist_l1, dist_l2=dist_l2)
    torch.testing.assert_close(found, expected)


def test_the_distance_gradient_is_zero_where_nothing_changed():
    image = torch.rand(2, 3, 4, 4)
    assert torch.equal(distance_gradient(image, image, dist_l1=1, dist_l2=1), torch.zeros_like(image))


def test_the_euclidean_distance_is_a_pictures_own():
    image = torch.zeros(2, 3, 4, 4)
    adversary = torch.stack([torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)])
    found = distance_gradient(image, adversary, dist_l1=0, dist_l2=1)
    torch.testing.assert_close(found[0], F.normalize(adversary[0].flatten(), dim=0).view(3, 4, 4))
    assert not found[1].any()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("none", [1, 1, 1, 1, 1]), ("step", [0, 0, 0, 1, 1]), ("linear", [0.2, 0.4, 0.6, 0.8, 1])],
)
def test_the_schedules_weigh_the_distances_as_documented(schedule, expected):
    assert [distance_weight(schedule, i, 5) for i in range(5)] == expected
