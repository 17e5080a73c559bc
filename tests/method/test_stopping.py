"""A picture's attack ends when it is done, whatever the other pictures of its batch do."""

import pytest
import torch

from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.objectives import confidence
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.stopping import MEMORY, Stopping
from ace_counterfactuals.core.method.task import judge
from tests.support.toys import ToyClassifier, attack_config, pictures, toy_task

MANY = {"attack_iterations": 12, "attack_step": 4.0}


def explained(image, *, indices=None, on_iteration=None, dtype=torch.float64, **settings):
    task = toy_task(dtype, **{"label_target": 1, **MANY, **settings})
    return explain(image, task, indices=indices, on_iteration=on_iteration)


@pytest.fixture(scope="module")
def stopped():
    return explained(pictures(4, torch.float64), attack_stop_confidence=0.5)


def test_pictures_end_at_iterations_of_their_own(stopped):
    assert len(set(stopped.iterations.tolist())) > 1
    assert 1 <= stopped.iterations.min() < MANY["attack_iterations"]


def test_a_picture_that_ended_is_what_an_attack_of_so_many_iterations_makes(stopped):
    for i, iterations in enumerate(stopped.iterations.tolist()):
        alone = explained(pictures(4, torch.float64)[i : i + 1], indices=[i], attack_iterations=iterations)
        # In float64 a batch's other sums differ by some 1e-13 in a gradient, of which an attack takes the sign.
        torch.testing.assert_close(stopped.pre_explanation[i], alone.pre_explanation[0], atol=1e-8, rtol=0)
        torch.testing.assert_close(stopped.counterfactual[i], alone.counterfactual[0], atol=1e-8, rtol=0)


@pytest.mark.parametrize("places", [[2], [3, 2, 1, 0], [1, 2]])
def test_a_picture_ends_at_the_same_iteration_in_any_batch(stopped, places):
    found = explained(pictures(4, torch.float64)[places], indices=places, attack_stop_confidence=0.5)
    assert torch.equal(found.iterations, stopped.iterations[places])


def test_what_is_done_is_not_computed_again(stopped):
    seen = []
    explained(pictures(4, torch.float64), attack_stop_confidence=0.5, on_iteration=seen.append)
    assert [state.iteration for state in seen] == list(range(1, stopped.iterations.max() + 1))
    assert torch.equal(seen[-1].iterations, stopped.iterations)


def test_patience_waits_for_so_many_iterations_in_a_row(stopped):
    patient = explained(pictures(4, torch.float64), attack_stop_confidence=0.5, attack_stop_patience=3)
    early = stopped.iterations <= MANY["attack_iterations"] - 2
    assert early.any() and (patient.iterations[early] >= stopped.iterations[early] + 2).all()


def test_a_picture_that_never_flips_runs_its_iterations_and_holds_up_nobody():
    stubborn = explained(pictures(4, torch.float64), attack_stop_confidence=0.9999)
    assert (stubborn.iterations == MANY["attack_iterations"]).all()


def test_without_a_confidence_nothing_is_counted_and_nothing_changes():
    image = pictures(2, torch.float64)
    found, usual = explained(image, attack_stop_patience=3), explained(image)
    assert found.iterations is None and torch.equal(found.counterfactual, usual.counterfactual)


@pytest.mark.parametrize(
    "settings",
    [
        {"attack_method": "C&W"},
        {"attack_method": "GD", "attack_step": 500.0},
        {"attack_joint": False},
        {"attack_joint_shortcut": True},
        {"attack_joint_checkpoint": True},
        {"attack_filter": "one-step"},
        {"label_target": -1},
        {"label_target": -1, "classifier": ToyClassifier(binary=True, dtype=torch.float64)},
    ],
)
def test_every_attack_and_gradient_can_end_early(settings):
    found = explained(pictures(4, torch.float64), attack_stop_confidence=0.05, **settings)
    assert found.iterations.min() < MANY["attack_iterations"]


@pytest.mark.parametrize("binary", [True, False])
def test_confidence_is_the_targets_probability_or_without_one_that_of_leaving_the_prediction(binary):
    logits = torch.tensor([2.0, -1.0]) if binary else torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    both = torch.stack([-logits, logits], 1).mul(0.5).softmax(1) if binary else logits.softmax(1)
    prediction, target = torch.tensor([1, 0]), torch.tensor([0, 1])
    torch.testing.assert_close(confidence(logits, prediction, target), both[[0, 1], target])
    torch.testing.assert_close(confidence(logits, prediction, None), 1 - both[[0, 1], prediction])


def test_the_average_begins_at_zero_and_remembers():
    batch, stopping = (
        judge(pictures(1), toy_task(label_target=1)).aimed(),
        Stopping(attack_config(attack_stop_confidence=0.5)),
    )
    at = Progress.begin(batch)
    for k in range(1, 4):
        stopping.see(torch.tensor([[0.0, 100.0, 0.0]]))
        at = stopping.count(at)
        assert at.average.tolist() == pytest.approx([1 - MEMORY**k])
        assert stopping.left(at) == ([] if 1 - MEMORY**k > 0.5 else [0])
