"""Bytes worked out without content are those of a real step, whatever layers keep."""

import pytest
import torch
from torch import nn

from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.footprint import kept_bytes, peak_bytes, without_content
from ace_counterfactuals.core.method.gradients import (
    chain_gradient,
    checkpointed_gradient,
    leaf,
    one_step_gradient,
    plain_gradient,
)
from tests.support.toys import SIDE, ToyClassifier, toy_diffusion, toy_unet

NETWORKS = {
    "as the toy is": {},
    "attention everywhere, convolutions between the levels": {"attention_resolutions": "8,4", "resblock_updown": False},
    "shift alone, attention in another order": {"use_scale_shift_norm": False, "use_new_attention_order": True},
    "recomputed blocks": {"use_checkpoint": True},
}


def still(draw, t, x):
    return torch.zeros_like(x)


def both(run, network, steps=1):
    """Bytes that a filter keeps, and the peak of run(filter, pictures), without content and for real."""
    weights = [*network.parameters()]

    def counted(stand_ins=()):
        filter_, image = Filter(toy_diffusion(), network, steps), torch.rand(2, 3, SIDE, SIDE)
        x = leaf(image)
        return kept_bytes(lambda: filter_(x, still), [*stand_ins, *weights]), peak_bytes(lambda: run(filter_, image))

    with without_content(weights) as stand_ins:
        hollow = counted(stand_ins)
    return hollow, counted()


def objective(picture):
    return (picture**2).sum()


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_a_step_keeps_what_is_worked_out_without_content(changes):
    hollow, real = both(lambda f, x: chain_gradient(objective, f, x, still), toy_unet(**changes))
    assert hollow[0] == pytest.approx(real[0], rel=0.05) and real[0] > 0
    assert hollow[1] == pytest.approx(real[1], rel=0.05)


def test_a_step_of_half_precision_keeps_what_is_worked_out():
    network = toy_unet().torso_to(torch.bfloat16)
    hollow, real = both(lambda f, x: one_step_gradient(objective, f, x, still), network)
    assert hollow == pytest.approx(real, rel=0.05)
    assert real[0] < 0.8 * both(lambda f, x: one_step_gradient(objective, f, x, still), toy_unet())[1][0]


@pytest.mark.slow
@pytest.mark.parametrize("segment", [1, 2])
def test_the_peak_of_checkpointed_steps_is_worked_out_too(segment):
    hollow, real = both(lambda f, x: checkpointed_gradient(objective, f, x, still, segment=segment), toy_unet(), 3)
    assert hollow[1] == pytest.approx(real[1], rel=0.05)


class Twice(torch.autograd.Function):
    """Keeps its input, and one large tensor beside."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, x.repeat(10))
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_what_a_function_of_ones_own_keeps_is_counted_and_each_storage_once():
    x = torch.ones(100)
    with without_content():
        assert kept_bytes(lambda: Twice.apply(leaf(x))) == 4 * 1100
        y = leaf(x)
        assert kept_bytes(lambda: (Twice.apply(y), y[:50].exp(), y.sin())) == 4 * (1100 + 50)  # y is there already


def test_weights_do_not_count():
    layer, x = nn.Linear(50, 70).requires_grad_(False), torch.ones(3, 50)
    with without_content(layer.parameters()) as weights:
        assert kept_bytes(lambda: layer(leaf(x)), [*weights, *layer.parameters()]) == 0
    assert kept_bytes(lambda: layer(leaf(x)), layer.parameters()) == 0


def test_the_peak_is_of_what_is_alive_at_once():
    def run():
        for _ in range(3):
            (torch.ones(1000).exp() + 1).view(10, 100)  # of which two are alive at once

    with without_content():
        assert peak_bytes(run) == 2 * 4 * 1000
    assert peak_bytes(run) == 2 * 4 * 1000


def test_a_gradient_of_the_classifier_alone_is_worked_out():
    classifier, image = ToyClassifier(), torch.rand(2, 3, SIDE, SIDE)
    real = peak_bytes(lambda: plain_gradient(lambda x: classifier(x).sum(), image))
    with without_content():
        assert peak_bytes(lambda: plain_gradient(lambda x: classifier(x).sum(), image)) == pytest.approx(real, rel=0.05)
