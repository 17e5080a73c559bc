"""Noise is a function of seed, picture, iteration and purpose, and of nothing else."""

import itertools

import pytest
import torch

from ace_counterfactuals.core.method.noise import REFINEMENT, Draw, image_noise, no_noise
from tests.support.toys import SIDE

X = torch.zeros(4, 3, SIDE, SIDE)


def draw(indices, *, seed=4, iteration=0, purpose=Draw.START, t=3, like=None):
    x = torch.zeros(len(indices), 3, SIDE, SIDE) if like is None else like
    return image_noise(seed, indices, iteration)(purpose, t, x)


def test_a_picture_has_the_same_noise_alone_and_in_a_batch():
    together = draw([5, 6, 7, 8])
    assert all(torch.equal(together[i : i + 1], draw([5 + i])) for i in range(4))


def test_the_noise_follows_the_pictures_when_their_order_is_reversed():
    assert torch.equal(draw([3, 2, 1]).flip(0), draw([1, 2, 3]))


def test_asking_again_gives_the_same_noise():
    noise = image_noise(4, [0, 1, 2, 3], 0)
    first = noise(Draw.POSTERIOR, 2, X)
    noise(Draw.POSTERIOR, 1, X)
    assert torch.equal(noise(Draw.POSTERIOR, 2, X), first)


def test_seed_picture_iteration_purpose_and_step_each_give_other_noise():
    settings = itertools.product((4, 5), (0, 1), (REFINEMENT, 0, 1), Draw, (0, 1))
    drawn = [draw([index], seed=seed, iteration=i, purpose=p, t=t) for seed, index, i, p, t in settings]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == len(drawn)


def test_picture_1_of_seed_4_is_not_picture_4_of_seed_1():
    assert not torch.equal(draw([1], seed=4), draw([4], seed=1))


def test_the_noise_is_standard_normal():
    noise = draw(list(range(400))).double()
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (noise[0] * noise[1]).mean().abs() < 0.3


def test_the_noise_is_pinned():
    """Another NumPy or another key would change every result that was ever made."""
    assert draw([0])[0, 0, 0, :3].tolist() == pytest.approx([0.45789582, 0.3814109, -0.89697576])


@pytest.mark.parametrize("seed", [0, 2**32, 2**70])
def test_seeds_of_any_size_are_taken_whole(seed):
    assert not torch.equal(draw([0], seed=seed), draw([0], seed=seed + 1))


def test_the_noise_takes_type_and_shape_of_the_picture():
    noise = draw([0], like=torch.zeros(1, 3, 4, 6, dtype=torch.float64))
    assert (noise.shape, noise.dtype) == ((1, 3, 4, 6), torch.float64)


def test_a_double_precision_run_sees_the_noise_of_a_single_precision_one():
    assert torch.equal(draw([7], like=X[:1].double()), draw([7]).double())


def test_drawing_does_not_touch_the_global_generator():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    draw([0])
    assert torch.equal(torch.rand(1), expected)


def test_without_noise_every_draw_is_zero():
    assert torch.equal(no_noise(Draw.START, 3, X + 1), X)
