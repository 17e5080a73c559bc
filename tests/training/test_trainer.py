import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ace_counterfactuals.core.training.config import TrainingConfig
from ace_counterfactuals.core.training.sampling import sample
from ace_counterfactuals.core.training.trainer import QUARTERS, Trainer, shuffled
from tests.support.toys import make_diffusion, toy_unet


class Toy(nn.Module):
    """A network of a few numbers that remembers the steps it was asked for."""

    def __init__(self, dropout: float = 0.0, outputs: int = 3):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.encode = nn.Conv2d(3, 16, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.decode = nn.Conv2d(16, outputs, 3, padding=1)
        self.steps: list[int] = []

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        self.steps += timesteps.tolist()
        h = self.encode(x) + self.embed(timesteps)[:, :, None, None]
        return self.decode(self.dropout(nn.functional.silu(h)))


def toy(**kwargs) -> Toy:
    torch.manual_seed(0)
    return Toy(**kwargs)


PICTURES = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (16, 3, 1, 1))).float().expand(-1, -1, 4, 4)


def batches(count: int = 8):
    positions = shuffled(len(PICTURES), count, seed=1)
    return lambda step: (PICTURES[positions(step)], None)


def trainer(
    model: nn.Module | None = None, *, process: dict | None = None, seed=3, precision=torch.float32, **settings
) -> Trainer:
    diffusion = make_diffusion(diffusion_steps=100, **(process or {}))
    config = TrainingConfig(**{"batch_size": 8, "lr": 1e-2, **settings})
    return Trainer(model or toy(), diffusion, config, seed=seed, precision=precision)


def run(trainer: Trainer, until: int, batch=None) -> list[float]:
    return [losses["loss"] for losses in trainer.train(batch or batches(), until)]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_the_loss_falls(learn_sigma):
    losses = run(trainer(toy(outputs=6 if learn_sigma else 3), process={"learn_sigma": learn_sigma}), 150)
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_the_moving_average_learns_too():
    trained = trainer(ema_rate=0.9)
    run(trained, 150)
    assert trained.ema.training is False
    assert not any(parameter.requires_grad for parameter in trained.ema.parameters())
    x_0, t = PICTURES, torch.full((16,), 50)
    eps = torch.randn(16, 3, 4, 4)
    after, before = (trained.diffusion.training_losses(m, x_0, t, eps)["loss"].mean() for m in (trained.ema, toy()))
    assert after < 0.6 * before


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(dropout):
    undisturbed = trainer(toy(dropout=dropout), lr_anneal_steps=20)
    losses = run(undisturbed, 8)

    first = trainer(toy(dropout=dropout), lr_anneal_steps=20)
    run(first, 5)
    saved = [copy.deepcopy(part.state_dict()) for part in (first.optimizer, first.model, first.ema)]
    torch.manual_seed(99)
    resumed = trainer(Toy(dropout=dropout), lr_anneal_steps=20)
    resumed.step = first.step
    for part, state in zip((resumed.optimizer, resumed.model, resumed.ema), saved, strict=True):
        part.load_state_dict(state)

    assert run(resumed, 8) == losses[5:]
    assert same(resumed.model, undisturbed.model)
    assert same(resumed.ema, undisturbed.ema)


@pytest.mark.parametrize("former", [False, True], ids=["by names", "by numbers, as former versions wrote it"])
def test_an_optimisers_state_goes_on_in_another_trainer(former):
    undisturbed, first, resumed = (trainer() for _ in range(3))
    losses = run(undisturbed, 8)
    run(first, 5)
    tree = copy.deepcopy(first.state_dict() | ({"optimizer": first.optimizer.state_dict()} if former else {}))
    resumed.model.load_state_dict(first.model.state_dict())
    resumed.step = tree["step"]
    resumed.load_state_dict(tree, {})
    assert run(resumed, 8) == losses[5:]


def test_a_state_of_before_the_first_step_is_gone_on_from():
    one, other = trainer(), trainer()
    other.load_state_dict({"optimizer": other.optimizer.state_dict()}, {})
    assert run(one, 3) == run(other, 3)


def test_another_seed_draws_other_steps_and_noise():
    assert run(trainer(seed=3), 3) != run(trainer(seed=4), 3)


@pytest.mark.parametrize("microbatch", [1, 3, 4])
def test_a_microbatch_gives_the_same_gradient_and_loss(microbatch):
    def gradient(**options):
        trained = trainer(**options)
        loss = run(trained, 1)
        return loss, [parameter.grad for parameter in trained.model.parameters()]

    (loss, whole), (loss_in_parts, parts) = gradient(), gradient(microbatch=microbatch)
    assert loss_in_parts == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)


def test_a_microbatch_is_all_that_the_network_sees_at_once():
    sizes = []
    model = toy()
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    run(trainer(model, microbatch=3), 1)
    assert sizes == [3, 3, 2]


def test_the_moving_average_is_the_sum_of_its_definition():
    rate, steps = 0.9, 5
    trained = trainer(ema_rate=rate)
    history = [trained.model.decode.weight.detach().clone()]
    for _ in trained.train(batches(), steps):
        history.append(trained.model.decode.weight.detach().clone())
    expected = rate**steps * history[0]
    expected = expected + sum((1 - rate) * rate ** (steps - k) * history[k] for k in range(1, steps + 1))
    torch.testing.assert_close(trained.ema.decode.weight, expected)


def learning_rates(trained: Trainer, until: int) -> list[float]:
    return [trained.optimizer.param_groups[0]["lr"] for _ in trained.train(batches(), until)]


def test_the_learning_rate_falls_linearly_to_zero_and_stays_there():
    assert learning_rates(trainer(lr_anneal_steps=4), 6) == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3, 0, 0])


def test_the_learning_rate_stays_where_nothing_anneals_it():
    assert learning_rates(trainer(), 3) == [1e-2] * 3


def test_the_learning_rate_rises_over_its_warm_up_and_then_falls():
    assert learning_rates(trainer(lr_warmup_steps=2), 3) == pytest.approx([5e-3, 1e-2, 1e-2])
    assert learning_rates(trainer(lr_warmup_steps=2, lr_anneal_steps=4), 3) == pytest.approx([5e-3, 7.5e-3, 5e-3])


def test_the_norm_of_the_gradient_is_told_and_clipped():
    plain, clipped = trainer(), trainer(grad_clip=0.5)
    told = [next(one.train(batches(), 1))["grad_norm"] for one in (plain, clipped)]
    norms = [torch.cat([p.grad.flatten() for p in one.model.parameters()]).norm().item() for one in (plain, clipped)]
    assert told == pytest.approx([norms[0]] * 2) and norms == pytest.approx([told[0], 0.5], rel=1e-5)


def test_a_gradient_that_is_no_number_stops_the_run_before_its_step():
    trained = trainer()
    trained.model.decode.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(trained.model)
    with pytest.raises(FloatingPointError, match="the gradient is .* at step 0"):
        run(trained, 1)
    assert same(trained.model, before)


def test_several_moving_averages_are_each_that_of_its_rate():
    several = trainer(ema_rate="0.5,0.9")
    run(several, 5)
    for rate, ema in several.emas.items():
        alone = trainer(ema_rate=rate)
        run(alone, 5)
        assert same(ema, alone.ema)


def test_the_loss_of_each_quarter_of_the_chain_is_told():
    (losses,) = trainer(min_snr_gamma=0).train(batches(), 1)
    quarters = [losses[name] for name in QUARTERS if name in losses]
    assert 1 < len(quarters) <= 4 and min(quarters) <= losses["loss"] <= max(quarters)
    alone = next(trainer(init_step=25).train(batches(), 1))
    assert alone["loss_q0"] == pytest.approx(alone["loss"]) and not {"loss_q1", "loss_q2", "loss_q3"} & alone.keys()


def test_min_snr_makes_little_of_the_first_steps_noise():
    plain, weighed = (next(trainer(init_step=5, min_snr_gamma=gamma).train(batches(), 1)) for gamma in (0, 5))
    assert weighed["loss"] < 0.1 * plain["loss"]


def test_half_precision_skips_the_steps_whose_gradient_overflows_and_scales_the_others():
    trained = trainer(precision=torch.float16)
    scales, losses = [], []
    for told in trained.train(batches(), 150):
        scales.append(trained.scaler.get_scale())
        losses.append(told["loss"])
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20]) and min(scales) > 1
    trained.model.decode.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(trained.model)
    assert "grad_norm" not in next(trained.train(batches(), 151))
    assert same(trained.model, before) and trained.scaler.get_scale() == scales[-1] / 2


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule_sampler": "loss-second-moment", "init_step": 4},
        {"ema_rate": "0.5,0.9", "ema_warmup": True},
        {"lr_warmup_steps": 7, "grad_clip": 0.1, "min_snr_gamma": 5.0},
        {"precision": torch.float16},
    ],
)
def test_a_training_goes_on_from_its_state_bit_for_bit(settings):
    undisturbed, first, resumed = (trainer(**settings) for _ in range(3))
    losses = run(undisturbed, 20)
    run(first, 12)
    tree = copy.deepcopy(first.state_dict())
    resumed.step = tree["step"]
    resumed.model.load_state_dict(first.model.state_dict())
    resumed.load_state_dict(tree, {rate: ema.state_dict() for rate, ema in first.emas.items()})
    assert run(resumed, 20) == losses[12:]
    assert same(resumed.model, undisturbed.model)
    assert all(same(resumed.emas[rate], ema) for rate, ema in undisturbed.emas.items())


def test_a_condition_is_learned():
    """Pictures of class 0 are dark, of class 1 bright."""
    network = toy_unet(num_classes=2, class_cond=True, learn_sigma=False).requires_grad_()
    pictures = torch.linspace(-1, 1, 2).view(2, 1, 1, 1).expand(2, 3, 8, 8).repeat(4, 1, 1, 1)
    classes = torch.tensor([0, 1]).repeat(4)
    trained = trainer(network, lr=2e-3)
    run(trained, 40, lambda step: (pictures, classes))
    x_t, t = torch.zeros(2, 3, 8, 8), torch.full((2,), 90)
    dark, bright = trained.model(x_t, t, torch.tensor([0, 1])).mean((1, 2, 3)).tolist()
    assert dark > bright  # of noise in what has none


def test_weight_decay_shrinks_the_weights():
    plain, decayed = trainer(), trainer(weight_decay=1.0)
    run(plain, 20)
    run(decayed, 20)
    assert decayed.model.encode.weight.norm() < plain.model.encode.weight.norm()


def test_every_step_of_the_chain_is_drawn():
    trained = trainer()
    run(trained, 100)
    assert set(trained.model.steps) == set(range(100))


def test_init_step_and_later_steps_are_never_drawn():
    trained = trainer(init_step=7)
    run(trained, 50)
    assert set(trained.model.steps) == set(range(7))


def test_use_kl_trains_by_the_bound_alone():
    losses = next(trainer(toy(outputs=6), process={"learn_sigma": True, "use_kl": True}).train(batches(), 1))
    assert losses["loss"] == losses["vb"]
    assert "mse" not in losses


def test_rescaling_weighs_the_bound_by_steps_over_1000():
    plain, rescaled = (
        next(trainer(toy(outputs=6), process={"learn_sigma": True, "rescale_learned_sigmas": flag}).train(batches(), 1))
        for flag in (False, True)
    )
    assert rescaled["vb"] == pytest.approx(plain["vb"] * 100 / 1000, rel=1e-6)


def test_bfloat16_keeps_the_weights_in_float32_and_learns():
    trained = trainer(precision=torch.bfloat16)
    losses = run(trained, 150)
    assert all(parameter.dtype == torch.float32 for parameter in trained.model.parameters())
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_a_loss_that_is_no_number_stops_the_run_with_the_step():
    trained = trainer()
    run(trained, 2)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2; try a smaller lr"):
        run(trained, 3, batch=lambda step: (PICTURES[:8] * float("nan"), None))


def test_shuffling_covers_every_picture_once_an_epoch():
    positions = shuffled(10, 4, seed=0)
    drawn = np.concatenate([positions(step) for step in range(10)])
    epochs = drawn.reshape(4, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_shuffling_depends_on_seed_and_step_alone():
    forwards, other = shuffled(10, 4, seed=0), shuffled(10, 4, seed=1)
    order = [forwards(step).tolist() for step in range(8)]
    assert shuffled(10, 4, seed=0)(7).tolist() == order[7]
    assert [other(step).tolist() for step in range(8)] != order


def test_samples_depend_on_their_seed():
    trained = trainer()
    one, again, other = (sample(trained.ema, trained.diffusion, (2, 3, 4, 4), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_sampling_adds_noise_after_every_step_but_the_last():
    diffusion = make_diffusion(diffusion_steps=100, timestep_respacing="2")
    rng, shape, steps = np.random.default_rng(5), (1, 3, 4, 4), torch.tensor([0, 1])
    x_1, eps = (torch.from_numpy(rng.standard_normal(shape, np.float32)) for _ in range(2))
    model = toy().requires_grad_(False)
    posterior = diffusion.p_mean_variance(model, x_1, steps[1:])
    x_0 = posterior.mean + (0.5 * posterior.log_variance).exp() * eps
    expected = diffusion.p_mean_variance(model, x_0, steps[:1]).mean
    assert torch.equal(sample(model, diffusion, shape, seed=5), expected)


def test_sampling_with_the_exact_network_draws_the_data():
    diffusion = make_diffusion(diffusion_steps=100, clip_denoised=False)
    a_bar = diffusion.alphas_cumprod.values.float()

    class Exact(nn.Module):
        """E[eps | x_t] for pictures that are all 0.4."""

        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.tensor(0.4))

        def forward(self, x, t, y=None):
            a = a_bar[t].view(-1, 1, 1, 1)
            return (x - a.sqrt() * self.level) / (1 - a).sqrt()

    drawn = sample(Exact(), diffusion, (2, 3, 4, 4), seed=0)
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.4), atol=1e-4, rtol=0)
