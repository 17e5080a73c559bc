"""Each attack makes the step that its paper writes down, so many times as it is told."""

import pytest
import torch

from ace_counterfactuals.core.method.attacks import (
    CW_MARGIN,
    carlini_wagner,
    cw_decode,
    cw_encode,
    gradient_descent,
    make_attack,
    pgd,
)
from tests.support.toys import pictures

STEP, EPSILON = 8 / 255, 16 / 255


def constant(gradient):
    """A gradient function that remembers where it was asked."""

    def grad_fn(adversary, iteration):
        grad_fn.asked.append((adversary, iteration))
        return gradient

    grad_fn.asked = []
    return grad_fn


def test_pgd_steps_by_the_sign_of_the_gradient():
    image, gradient = torch.full((1, 3, 2, 2), 0.5), torch.randn(1, 3, 2, 2)
    found = pgd(step=STEP, epsilon=1)(constant(gradient), image, 1)
    assert torch.equal(found, image - STEP * gradient.sign())


def test_gradient_descent_steps_by_the_gradient():
    image, gradient = torch.full((1, 3, 2, 2), 0.5), torch.randn(1, 3, 2, 2)
    found = gradient_descent(step=STEP, epsilon=1)(constant(gradient), image, 1)
    assert torch.equal(found, image - STEP * gradient)


@pytest.mark.parametrize("attack", [pgd, gradient_descent])
def test_the_result_of_many_steps_is_the_projection_in_closed_form(attack):
    """Under a constant gradient: all steps at once, cut to the ball and to the range."""
    image, gradient = pictures(2), torch.randn(2, 3, 8, 8)
    found = attack(step=STEP, epsilon=EPSILON)(constant(gradient), image, 5)
    moved = image - 5 * STEP * (gradient.sign() if attack is pgd else gradient)
    expected = torch.minimum(torch.maximum(moved, image - EPSILON), image + EPSILON).clamp(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_projection_is_to_the_ball_first_and_then_to_the_range_bit_for_bit():
    image, gradient = pictures(1), torch.randn(1, 3, 8, 8)
    found = gradient_descent(step=1, epsilon=EPSILON)(constant(gradient), image, 1)
    assert torch.equal(found, (image - gradient).clamp(image - EPSILON, image + EPSILON).clamp(0, 1))


def test_a_radius_of_zero_leaves_the_picture():
    image = pictures(1)
    assert torch.equal(pgd(step=STEP, epsilon=0)(constant(torch.ones_like(image)), image, 3), image)


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_n_iterations_are_n_updates(method):
    grad_fn = constant(torch.randn(1, 3, 8, 8))
    make_attack(method, step=STEP, epsilon=EPSILON)(grad_fn, pictures(1), 4)
    assert [iteration for _, iteration in grad_fn.asked] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["PGD", "GD"])
def test_the_attack_starts_at_the_picture_itself(method):
    image, grad_fn = pictures(1), constant(torch.ones(1, 3, 8, 8))
    make_attack(method, step=STEP, epsilon=EPSILON)(grad_fn, image, 1)
    assert torch.equal(grad_fn.asked[0][0], image)


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_the_last_update_counts(method):
    image, gradient = pictures(1) * 0.5 + 0.25, torch.ones(1, 3, 8, 8)
    attack = make_attack(method, step=0.01, epsilon=1)
    once, twice = (attack(constant(gradient), image, n) for n in (1, 2))
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
    found = carlini_wagner(step=STEP)(constant(gradient), image, 1)
    torch.testing.assert_close(found, cw_decode(w.detach() - STEP * slope), atol=1e-12, rtol=0)


def test_carlini_wagner_clamps_after_an_update_and_not_before_the_first():
    """A black and a white pixel have an infinite or large w: they are attacked as they are, and then come inside."""
    image, grad_fn = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), constant(torch.zeros(1, 1, 1, 2))
    found = carlini_wagner(step=STEP)(grad_fn, image, 1)
    asked = grad_fn.asked[0][0]
    assert (asked - image).abs().max() <= 2 * CW_MARGIN
    assert torch.equal(found, cw_decode(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)))


def test_carlini_wagner_has_no_radius():
    image, gradient = torch.full((1, 3, 4, 4), 0.5), torch.ones(1, 3, 4, 4)
    small, large = (make_attack("C&W", step=1, epsilon=e)(constant(gradient), image, 3) for e in (1e-6, 1))
    assert torch.equal(small, large)


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_the_result_is_a_picture(method):
    image = pictures(2)
    found = make_attack(method, step=1, epsilon=1)(constant(100 * torch.randn_like(image)), image, 3)
    assert found.min() >= 0 and found.max() <= 1


def test_the_attack_leaves_its_input_alone():
    image = pictures(1)
    before = image.clone()
    pgd(step=STEP, epsilon=1)(constant(torch.ones_like(image)), image, 2)
    assert torch.equal(image, before)
