"""Each attack makes the step that its paper writes down, so many times as it is told."""

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError, convert, flag_items
from ace_counterfactuals.core.method.attacks import (
    ATTACKS,
    CW_MARGIN,
    Attack,
    cross_entropy,
    cw_decode,
    cw_encode,
    find_attack,
)
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.toys import iterated, pictures, toy_task

STEP, EPSILON = 8.0, 16.0  # in 1/255
MOVING = [name for name, attack in ATTACKS.items() if attack]


def attacked(method, grad_fn, image, iterations=1, *, step=STEP, epsilon=255.0):
    config = AttackConfig(attack_iterations=iterations, attack_step=step, attack_epsilon=epsilon)
    return iterated(ATTACKS[method], grad_fn, image, config)


def constant(gradient):
    """A gradient function that remembers where it was asked."""

    def grad_fn(adversary, iteration):
        grad_fn.asked.append((adversary, iteration))
        return gradient

    grad_fn.asked = []
    return grad_fn


def test_pgd_steps_by_the_sign_of_the_gradient_and_gradient_descent_by_itself():
    image, gradient = torch.full((1, 3, 2, 2), 0.5), torch.randn(1, 3, 2, 2)
    assert torch.equal(attacked("PGD", constant(gradient), image), image - STEP / 255 * gradient.sign())
    assert torch.equal(attacked("GD", constant(gradient), image), image - STEP / 255 * gradient)


@pytest.mark.parametrize("method", ["PGD", "GD"])
def test_the_result_of_many_steps_is_the_projection_in_closed_form(method):
    """Under a constant gradient: all steps at once, cut to the ball and to the range."""
    image, gradient = pictures(2), torch.randn(2, 3, 8, 8)
    found = attacked(method, constant(gradient), image, 5, epsilon=EPSILON)
    moved = image - 5 * STEP / 255 * (gradient.sign() if method == "PGD" else gradient)
    expected = torch.minimum(torch.maximum(moved, image - EPSILON / 255), image + EPSILON / 255).clamp(0, 1)
    rounding = 5 * torch.finfo(torch.float32).eps  # of five sums of numbers below 2, each rounded by eps at most
    torch.testing.assert_close(found, expected, atol=rounding, rtol=0)


def test_the_projection_is_to_the_ball_first_and_then_to_the_range_bit_for_bit():
    image, gradient, radius = pictures(1), torch.randn(1, 3, 8, 8), EPSILON / 255
    found = attacked("GD", constant(gradient), image, step=255.0, epsilon=EPSILON)
    assert torch.equal(found, (image - gradient).clamp(image - radius, image + radius).clamp(0, 1))


def test_a_radius_of_zero_leaves_the_picture():
    image = pictures(1)
    assert torch.equal(attacked("PGD", constant(torch.ones_like(image)), image, 3, epsilon=0), image)


@pytest.mark.parametrize("method", MOVING)
def test_n_iterations_are_n_updates(method):
    grad_fn = constant(torch.randn(1, 3, 8, 8))
    attacked(method, grad_fn, pictures(1), 4)
    assert [iteration for _, iteration in grad_fn.asked] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["PGD", "GD"])
def test_the_attack_starts_at_the_picture_itself(method):
    image, grad_fn = pictures(1), constant(torch.ones(1, 3, 8, 8))
    attacked(method, grad_fn, image)
    assert torch.equal(grad_fn.asked[0][0], image)


@pytest.mark.parametrize("method", MOVING)
def test_the_last_update_counts(method):
    image, gradient = pictures(1) * 0.5 + 0.25, torch.ones(1, 3, 8, 8)
    once, twice = (attacked(method, constant(gradient), image, n, step=2.55) for n in (1, 2))
    assert (twice < once).all()


def test_the_change_of_variable_comes_back_within_the_margin():
    image = torch.linspace(0, 1, 256, dtype=torch.float64).view(1, 1, 16, 16)
    assert (cw_decode(cw_encode(image)) - image).abs().max() <= CW_MARGIN * (1 + 1e-6)


def test_the_change_of_variable_is_not_quite_its_inverse_as_in_the_original():
    image = torch.tensor(0.5, dtype=torch.float64)
    w = torch.atanh(2 * image / (1 + 1e-5) - 1)
    assert cw_encode(image) == w
    assert cw_decode(w) == (torch.tanh(w) + 1) * (0.5 + 1e-5)


def test_a_carlini_wagner_update_is_the_chain_rule_through_its_variable():
    image, gradient = torch.full((1, 3, 4, 4), 0.3, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    w = cw_encode(image).requires_grad_()
    (slope,) = torch.autograd.grad(cw_decode(w), w, gradient)
    found = attacked("C&W", constant(gradient), image)
    expected = cw_decode(w.detach() - STEP / 255 * slope)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)  # some 1000 times eps of float64, of ten operations


def test_carlini_wagner_clamps_after_an_update_and_not_before_the_first():
    """A black and a white pixel have an infinite or large w: they are attacked as they are, and then come inside."""
    image, grad_fn = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), constant(torch.zeros(1, 1, 1, 2))
    found = attacked("C&W", grad_fn, image)
    asked = grad_fn.asked[0][0]
    assert (asked - image).abs().max() <= 2 * CW_MARGIN
    assert torch.equal(found, cw_decode(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)))


def test_carlini_wagner_has_no_radius():
    image, gradient = torch.full((1, 3, 4, 4), 0.5), torch.ones(1, 3, 4, 4)
    small, large = (attacked("C&W", constant(gradient), image, 3, step=255.0, epsilon=e) for e in (1e-3, 255.0))
    assert torch.equal(small, large)


@pytest.mark.parametrize("method", MOVING)
def test_the_result_is_a_picture_and_the_input_is_left_alone(method):
    image = pictures(2)
    before = image.clone()
    found = attacked(method, constant(100 * torch.randn_like(image)), image, 3, step=255.0)
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(image, before)


def test_an_attack_is_one_entry_that_any_module_may_add(monkeypatch):
    """A step of its own, a projection that keeps the first channel, and its own loss."""

    def project(picture, image, epsilon):
        return torch.cat([image[:, :1], picture[:, 1:]], 1).clamp(0, 1)

    seen = []

    def loss(logits, target):
        seen.append(target)
        return 2 * cross_entropy(logits, target)

    entry = Attack(step=lambda x, gradient, size: x - size * gradient.tanh(), project=project, loss=loss, targeted=True)
    monkeypatch.setitem(ATTACKS, "mine", entry)
    option = flag_items(MainConfig)["attack_method"]
    assert convert("attack_method", option, "mine") == "mine"
    image = pictures(2)
    found = explain(image, toy_task(attack_method="mine", attack_step=100.0, label_target=1))
    assert torch.equal(found.pre_explanation[:, 0], image[:, 0])
    assert (found.pre_explanation[:, 1:] != image[:, 1:]).any() and seen
    with pytest.raises(FlagError, match="mine is targeted"):
        explain(image, toy_task(attack_method="mine"))


def test_an_attack_that_there_is_not_is_refused():
    with pytest.raises(FlagError, match="PDG: wanted one of PGD, GD, C&W, None"):
        find_attack("PDG", targeted=True)
