import math

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import (
    discretized_gaussian_log_likelihood,
    mean_flat,
    normal_kl,
)
from ace_counterfactuals.guided_diffusion.schedule import NOISE_SCHEDULES
from tests.support.toys import make_diffusion

STEPS = 50
ALL_STEPS = torch.arange(STEPS)


def process(**options):
    """A chain in which every step is in use, with nothing clipped unless asked."""
    return make_diffusion(**{"diffusion_steps": STEPS, "clip_denoised": False, **options})


def pictures(n=STEPS, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, channels, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1


def noise(n=STEPS, seed=2):
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alpha_bar(diffusion, t=ALL_STEPS):
    return diffusion.alphas_cumprod.values[t].view(-1, 1, 1, 1)


def returns(output):
    """A network that has made up its mind."""
    return lambda x_t, timesteps, y: output


class Recorder:
    def __call__(self, x_t, timesteps, y):
        self.timesteps, self.y = timesteps, y
        return torch.zeros_like(x_t)


class GaussianPrior:
    """The process when x_0 ~ N(m, s^2), where everything is known."""

    def __init__(self, diffusion, m=0.3, s=0.5):
        self.diffusion, self.m = diffusion, m
        a_bar = alpha_bar(diffusion)
        previous = torch.cat([torch.ones_like(a_bar[:1]), a_bar[:-1]])
        alpha = a_bar / previous
        self.mean, self.mean_previous = a_bar.sqrt() * m, previous.sqrt() * m
        self.variance, self.variance_previous = (a * s**2 + 1 - a for a in (a_bar, previous))
        self.slope = alpha.sqrt() * self.variance_previous / self.variance
        self.step_variance = self.variance_previous - self.slope**2 * self.variance

    def eps(self, x_t, timesteps, y):
        """E[eps | x_t] with x_t at step t of every t."""
        return (1 - alpha_bar(self.diffusion)).sqrt() * (x_t - self.mean) / self.variance

    def step_mean(self, x_t):
        """E[x_{t-1} | x_t]: regression of one Gaussian on another."""
        return self.mean_previous + self.slope * (x_t - self.mean)


def test_q_sample_has_the_moments_of_q():
    diffusion, n = process(), 200_000
    t = torch.full((n,), 20)
    eps = torch.randn(n, 1, 1, 1, dtype=torch.float64)
    x_t = diffusion.q_sample(torch.full_like(eps, 0.7), t, eps)
    a_bar = diffusion.alphas_cumprod.values[20]
    assert x_t.mean() == pytest.approx(math.sqrt(a_bar) * 0.7, abs=0.01)
    assert x_t.var() == pytest.approx(float(1 - a_bar), rel=0.01)


def test_q_sample_without_noise_shrinks_the_picture():
    diffusion, x_0 = process(), pictures()
    torch.testing.assert_close(
        diffusion.q_sample(x_0, ALL_STEPS, torch.zeros_like(x_0)), alpha_bar(diffusion).sqrt() * x_0
    )


def test_the_posterior_is_that_of_bayes_rule():
    diffusion, x_0, x_t = process(), pictures(), noise()
    a_bar, t = alpha_bar(diffusion), ALL_STEPS[1:]
    beta = 1 - a_bar[1:] / a_bar[:-1]
    # N(x_{t-1}; sqrt(a_bar_{t-1}) x_0, 1 - a_bar_{t-1}) times N(x_t; sqrt(1 - beta) x_{t-1}, beta)
    precision = 1 / (1 - a_bar[:-1]) + (1 - beta) / beta
    mean = (a_bar[:-1].sqrt() * x_0[1:] / (1 - a_bar[:-1]) + (1 - beta).sqrt() * x_t[1:] / beta) / precision
    ours, log_variance = diffusion.q_posterior(x_0[1:], x_t[1:], t)
    torch.testing.assert_close(ours, mean)
    torch.testing.assert_close(log_variance, -precision.log().expand_as(mean))


def test_the_posterior_of_step_0_is_x_0_with_the_log_variance_of_step_1():
    diffusion, x_0 = process(), pictures(1)
    mean, log_variance = diffusion.q_posterior(x_0, noise(1), torch.tensor([0]))
    torch.testing.assert_close(mean, x_0)
    assert log_variance[0, 0, 0, 0] == diffusion.q_posterior(x_0, noise(1), torch.tensor([1]))[1][0, 0, 0, 0]


def test_the_reverse_steps_mean_is_exact_for_a_gaussian_prior():
    diffusion, x_t = process(), noise()
    prior = GaussianPrior(diffusion)
    torch.testing.assert_close(diffusion.p_mean_variance(prior.eps, x_t, ALL_STEPS).mean, prior.step_mean(x_t))


@pytest.mark.parametrize(("v", "s"), [(-1, 0.0), (1, 1.0)])
def test_the_learned_range_ends_at_the_variances_of_a_point_and_of_a_unit_gaussian(v, s):
    diffusion = process(learn_sigma=True)
    prior = GaussianPrior(diffusion, s=s)

    def network(x_t, timesteps, y):
        return torch.cat([prior.eps(x_t, timesteps, y), torch.full_like(x_t, v)], dim=1)

    log_variance = diffusion.p_mean_variance(network, noise(), ALL_STEPS).log_variance
    torch.testing.assert_close(log_variance[1:].exp(), prior.step_variance[1:].expand_as(log_variance[1:]))


def test_the_learned_range_interpolates_the_log_variance():
    diffusion, x_t = process(learn_sigma=True), noise()

    def log_variance(v):
        return diffusion.p_mean_variance(
            returns(torch.cat([x_t, torch.full_like(x_t, v)], 1)), x_t, ALL_STEPS
        ).log_variance

    torch.testing.assert_close(log_variance(0.5), 0.25 * log_variance(-1) + 0.75 * log_variance(1))


def test_the_fixed_variance_is_beta_and_at_step_0_the_posteriors_of_step_1():
    diffusion, x_t = process(), noise()
    a_bar = alpha_bar(diffusion)
    variance = diffusion.p_mean_variance(returns(x_t), x_t, ALL_STEPS).log_variance.exp()[:, :1, :1, :1]
    torch.testing.assert_close(variance[1:], 1 - a_bar[1:] / a_bar[:-1])
    torch.testing.assert_close(
        variance[0], diffusion.q_posterior(x_t[1:2], x_t[1:2], ALL_STEPS[1:2])[1].exp()[0, :1, :1, :1]
    )


def test_the_true_noise_leads_back_to_x_0():
    diffusion, x_0, eps = process(), pictures(), noise()
    x_t = diffusion.q_sample(x_0, ALL_STEPS, eps)
    torch.testing.assert_close(diffusion.p_mean_variance(returns(eps), x_t, ALL_STEPS).pred_xstart, x_0)


@pytest.mark.parametrize("noise_schedule", NOISE_SCHEDULES)
@pytest.mark.parametrize("settings", [{}, {"predict_xstart": True}, {"predict": "v"}])
def test_a_perfect_prediction_leads_back_to_x_0_by_every_schedule_and_parametrisation(noise_schedule, settings):
    diffusion, x_0, eps = process(noise_schedule=noise_schedule, **settings), pictures(), noise()
    x_t = diffusion.q_sample(x_0, ALL_STEPS, eps)
    found = diffusion.p_mean_variance(returns(diffusion.target(x_0, ALL_STEPS, eps)), x_t, ALL_STEPS).pred_xstart
    torch.testing.assert_close(found, x_0, rtol=1e-9, atol=1e-9)  # 1 / sqrt(alpha_bar) is 1e4 at the last of cosine


def test_predicting_v_and_x_0_is_refused():
    with pytest.raises(FlagError, match="v with predict_xstart True") as caught:
        process(predict="v", predict_xstart=True)
    assert caught.value.field == "predict"


def test_predicting_x_0_equals_predicting_the_noise_for_a_consistent_network():
    x_0, eps = pictures(), noise()
    x_t = process().q_sample(x_0, ALL_STEPS, eps)
    by_eps = process().p_mean_variance(returns(eps), x_t, ALL_STEPS)
    by_x_0 = process(predict_xstart=True).p_mean_variance(returns(x_0), x_t, ALL_STEPS)
    torch.testing.assert_close(by_eps.mean, by_x_0.mean)


def test_the_predicted_x_0_is_clipped_if_asked():
    diffusion = process(predict_xstart=True, clip_denoised=True)
    posterior = diffusion.p_mean_variance(returns(3 * noise()), noise(seed=3), ALL_STEPS)
    torch.testing.assert_close(posterior.pred_xstart, (3 * noise()).clamp(-1, 1))
    torch.testing.assert_close(
        posterior.mean, diffusion.q_posterior(posterior.pred_xstart, noise(seed=3), ALL_STEPS)[0]
    )


def test_the_network_gets_the_original_step_numbers():
    network = Recorder()
    diffusion = process(timestep_respacing="5")
    diffusion.p_mean_variance(network, noise(5), torch.arange(5), y := torch.arange(5))
    assert network.timesteps.tolist() == [0, 12, 24, 37, 49]
    assert network.timesteps.dtype == torch.int64
    assert network.y is y


def test_rescaled_timesteps_run_to_1000():
    network = Recorder()
    diffusion = process(rescale_timesteps=True, timestep_respacing="5")
    diffusion.p_mean_variance(network, noise(5), torch.arange(5))
    assert network.timesteps.tolist() == [0, 240, 480, 740, 980]
    assert network.timesteps.is_floating_point()


@pytest.mark.parametrize(("learn_sigma", "channels"), [(True, 3), (False, 6)])
def test_a_network_with_other_channels_is_refused_with_the_flag(learn_sigma, channels):
    diffusion = process(learn_sigma=learn_sigma)
    with pytest.raises(ValueError, match=f"set learn_sigma {not learn_sigma}"):
        diffusion.p_mean_variance(returns(torch.zeros(1, channels, 4, 4)), torch.zeros(1, 3, 4, 4), torch.tensor([3]))


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_a_chain_of_one_step_gives_the_predicted_x_0_and_its_beta(learn_sigma):
    diffusion = process(timestep_respacing="1", learn_sigma=learn_sigma, predict_xstart=True)
    t, x_0 = torch.tensor([0]), pictures(1)
    output = torch.cat([x_0, 0 * x_0], dim=1) if learn_sigma else x_0
    posterior = diffusion.p_mean_variance(returns(output), noise(1), t)
    torch.testing.assert_close(posterior.mean, x_0)
    torch.testing.assert_close(posterior.log_variance.exp(), (1 - alpha_bar(diffusion, t)).expand_as(x_0))


def test_float32_tables_are_the_float64_ones_cast_at_use():
    table = process().sqrt_alphas_cumprod
    at = table.at(ALL_STEPS, torch.zeros(1, dtype=torch.float32))
    assert at.dtype == torch.float32
    assert torch.equal(at.flatten(), table.values.float())


def test_the_kl_of_two_gaussians_is_torchs():
    mean_1, log_variance_1, mean_2, log_variance_2 = torch.randn(4, 10, dtype=torch.float64)
    p, q = (
        torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        for mean, log_variance in ((mean_1, log_variance_1), (mean_2, log_variance_2))
    )
    ours = normal_kl(mean_1, log_variance_1, mean_2, log_variance_2)
    torch.testing.assert_close(ours, torch.distributions.kl_divergence(p, q))


def test_the_bound_is_zero_where_the_networks_posterior_is_the_true_one():
    diffusion, x_0 = process(learn_sigma=True, predict_xstart=True), pictures()
    x_t = diffusion.q_sample(x_0, ALL_STEPS, noise())
    posterior = diffusion.p_mean_variance(returns(torch.cat([x_0, -torch.ones_like(x_0)], 1)), x_t, ALL_STEPS)
    terms = diffusion.vlb_terms(posterior, x_0, x_t, ALL_STEPS)
    torch.testing.assert_close(terms[1:], torch.zeros(STEPS - 1, dtype=torch.float64))
    assert terms[0] > 0


def test_the_bound_at_step_0_is_the_decoders_likelihood_in_bits():
    diffusion, x_0 = process(), pictures(1)
    t, x_t = torch.tensor([0]), noise(1)
    posterior = diffusion.p_mean_variance(returns(0.1 * x_t), x_t, t)
    nats = -discretized_gaussian_log_likelihood(x_0, posterior.mean, 0.5 * posterior.log_variance)
    torch.testing.assert_close(diffusion.vlb_terms(posterior, x_0, x_t, t), mean_flat(nats) / math.log(2))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.05), (0.99, 0.3), (-2.0, 1.0)])
def test_the_likelihoods_of_the_256_levels_sum_to_1(mean, scale):
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    log_scale = torch.full_like(levels, math.log(scale))
    total = discretized_gaussian_log_likelihood(levels, torch.full_like(levels, mean), log_scale).exp().sum()
    assert total == pytest.approx(1, abs=1e-9)


def test_the_bound_of_a_chain_of_two_steps_is_what_its_gaussians_give():
    """A network that finds no noise: the step's means are of x_0 and of x_1 / sqrt(alpha_bar)."""
    diffusion, t = process(timestep_respacing="2"), torch.tensor([1, 0])
    x_0, eps = 0.9 * pictures(2), noise(2)  # of which no level is the darkest or brightest, which reach farther
    first, second = diffusion.alphas_cumprod.values
    beta = 1 - second / first
    (one, _), (_, other) = (a.sqrt() * x_0 + (1 - a).sqrt() * eps for a in (second, first))
    x_t = torch.stack([one, other])
    old, new = first.sqrt() * beta / (1 - second), (1 - beta).sqrt() * (1 - first) / (1 - second)
    q = torch.distributions.Normal(old * x_0[0] + new * x_t[0], (beta * (1 - first) / (1 - second)).sqrt())
    p = torch.distributions.Normal(old * x_t[0] / second.sqrt() + new * x_t[0], beta.sqrt())
    left, right = ((x_0[1] + side / 255 - x_t[1] / first.sqrt()) / q.stddev[0, 0, 0] for side in (-1, 1))
    inside = torch.special.ndtr(right) - torch.special.ndtr(left)
    wanted = [torch.distributions.kl_divergence(q, p).mean(), -inside.clamp(min=1e-12).log().mean()]
    posterior = diffusion.p_mean_variance(returns(torch.zeros_like(x_0)), x_t, t)
    torch.testing.assert_close(diffusion.vlb_terms(posterior, x_0, x_t, t), torch.stack(wanted) / math.log(2))


def losses(output, *, t=ALL_STEPS, **options):
    return process(**options).training_losses(returns(output), pictures(), t, noise())


def test_a_network_that_knows_the_noise_has_no_mse():
    assert losses(noise())["loss"].tolist() == [0] * STEPS


def test_the_mse_of_a_network_that_finds_nothing_is_the_mean_square_of_what_it_is_to_find():
    assert torch.equal(losses(torch.zeros_like(noise()))["loss"], mean_flat(noise() ** 2))


def test_the_mse_is_a_mean_over_one_picture():
    torch.testing.assert_close(losses(noise() + 0.5)["loss"], torch.full((STEPS,), 0.25, dtype=torch.float64))


def test_a_network_that_predicts_x_0_is_compared_with_x_0():
    assert losses(pictures(), predict_xstart=True)["loss"].tolist() == [0] * STEPS


def test_the_network_sees_the_noised_picture():
    diffusion, seen = process(), []
    diffusion.training_losses(lambda x_t, *_: seen.append(x_t) or x_t, pictures(), ALL_STEPS, noise())
    torch.testing.assert_close(seen[0], diffusion.q_sample(pictures(), ALL_STEPS, noise()))


def test_a_learned_variance_adds_the_bound():
    output = torch.cat([noise(seed=5), noise(seed=6)], dim=1)
    terms = losses(output, learn_sigma=True)
    torch.testing.assert_close(terms["loss"], terms["mse"] + terms["vb"])
    assert (terms["vb"] > 0).all()


def test_rescaling_weighs_the_bound_by_steps_over_1000():
    output = torch.cat([noise(seed=5), noise(seed=6)], dim=1)
    plain, rescaled = (losses(output, learn_sigma=True, rescale_learned_sigmas=flag) for flag in (False, True))
    torch.testing.assert_close(rescaled["vb"], plain["vb"] * STEPS / 1000)
    torch.testing.assert_close(rescaled["loss"], plain["mse"] + plain["vb"] * STEPS / 1000)


def test_the_bound_trains_the_variance_alone():
    prediction, v = (noise(seed=seed).requires_grad_() for seed in (5, 6))
    terms = losses(torch.cat([prediction, v], dim=1), learn_sigma=True)
    by_loss = torch.autograd.grad(terms["loss"].sum(), [prediction, v], retain_graph=True)
    by_mse = torch.autograd.grad(terms["mse"].sum(), [prediction, v], allow_unused=True)
    torch.testing.assert_close(by_loss[0], by_mse[0])
    assert by_loss[1].abs().sum() > 0
    assert by_mse[1] is None or not by_mse[1].any()


def test_use_kl_trains_mean_and_variance_by_the_bound_times_steps():
    prediction, v = (noise(seed=seed).requires_grad_() for seed in (5, 6))
    output = torch.cat([prediction, v], dim=1)
    terms = losses(output, learn_sigma=True, use_kl=True)
    torch.testing.assert_close(terms["loss"], losses(output, learn_sigma=True)["vb"] * STEPS)
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(terms["loss"].sum(), [prediction, v]))


def test_the_bound_is_trained_with_x_0_unclipped_since_a_clipped_one_has_no_gradient():
    x_0 = torch.full_like(pictures(), 5.0).requires_grad_()
    loss = losses(x_0, use_kl=True, predict_xstart=True, clip_denoised=True)["loss"]
    assert torch.autograd.grad(loss[1:].sum(), x_0)[0][1:].all()


def test_use_kl_works_with_a_fixed_variance():
    assert (losses(noise(seed=5), use_kl=True)["loss"] > 0).all()
