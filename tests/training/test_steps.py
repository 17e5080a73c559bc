"""Which steps are trained on, and what their losses count."""

import numpy as np
import pytest
import torch

from ace_counterfactuals.core.training.steps import EVEN, KEPT, LossSecondMoment, make_sampler, min_snr_weights
from tests.support.toys import make_diffusion


def learned(losses):
    """A sampler that has seen the loss of each step so often that it goes by it."""
    sampler = LossSecondMoment(len(losses))
    for _ in range(KEPT):
        sampler.learn(np.arange(len(losses)), np.array(losses, float))
    return sampler


def test_steps_are_drawn_evenly_until_each_has_ten_losses():
    sampler = LossSecondMoment(3)
    for _ in range(KEPT - 1):
        sampler.learn(np.arange(3), np.array([1.0, 2.0, 3.0]))
    sampler.learn(np.array([0, 1]), np.array([1.0, 2.0]))
    assert sampler.probabilities().tolist() == [1 / 3] * 3
    sampler.learn(np.array([2]), np.array([3.0]))
    assert sampler.probabilities()[2] > 0.49


def test_a_step_is_drawn_by_the_root_of_the_mean_square_of_its_last_ten_losses():
    sampler = learned([1.0, 100.0])
    for i in range(KEPT):  # which leave none of those before
        sampler.learn(np.array([1]), np.array([float(i)]))
    root = np.sqrt(np.mean(np.arange(KEPT) ** 2))
    wanted = (1 - EVEN) * np.array([1, root]) / (1 + root) + EVEN / 2
    np.testing.assert_allclose(sampler.probabilities(), wanted, rtol=1e-12)


def test_the_weights_of_drawn_steps_make_up_for_how_often_they_are_drawn():
    sampler = learned([1.0, 2.0, 5.0])
    steps, weights = sampler.draw(np.random.default_rng(0), 30_000)
    np.testing.assert_allclose(weights, 1 / (3 * sampler.probabilities()[steps]), rtol=1e-6)
    loss = np.array([1.0, 2.0, 5.0])[steps]
    assert np.mean(loss * weights) == pytest.approx(8 / 3, rel=0.01)  # 3 deviations of the mean


def test_a_sampler_goes_on_from_its_state():
    one, other = learned([1.0, 2.0, 5.0]), LossSecondMoment(3)
    other.load_state_dict(one.state_dict())
    assert np.array_equal(one.draw(np.random.default_rng(0), 20)[0], other.draw(np.random.default_rng(0), 20)[0])
    with pytest.raises(ValueError, match="losses of 3 steps, wanted 4"):
        LossSecondMoment(4).load_state_dict(one.state_dict())


def test_losses_of_zero_draw_evenly():
    assert learned([0.0, 0.0]).probabilities().tolist() == [0.5, 0.5]


def test_evenly_drawn_steps_count_alike():
    steps, weights = make_sampler("uniform", 4).draw(np.random.default_rng(0), 100)
    assert set(steps) == {0, 1, 2, 3} and set(weights) == {1}


@pytest.mark.parametrize("predicted", ["noise", "x_0", "v"])
def test_min_snr_weighs_the_error_of_x_0_by_the_ratio_of_signal_to_noise_at_most_gamma(predicted):
    settings = {"predict_xstart": predicted == "x_0", "predict": "v" if predicted == "v" else "noise"}
    diffusion = make_diffusion(diffusion_steps=50, clip_denoised=False, **settings)
    weights, t = min_snr_weights(diffusion, 5.0), torch.arange(50)
    x_0, eps = torch.randn(2, 50, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_t, off = diffusion.q_sample(x_0, t, eps), diffusion.target(x_0, t, eps) + 0.1
    ratio = diffusion.alphas_cumprod.values / (1 - diffusion.alphas_cumprod.values)
    of_x_0 = (diffusion.xstart_from_output(x_t, t, off) - x_0).flatten() ** 2
    np.testing.assert_allclose(weights * 0.1**2, ratio.clamp(max=5) * of_x_0, rtol=1e-6)
