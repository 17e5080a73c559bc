"""--model_path FILE.py:FUNCTION: a network of the user's that predicts noise, or the velocity of a flow."""

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import refine
from ace_counterfactuals.models.denoisers import load_denoiser
from ace_counterfactuals.models.loading import WeightsError
from tests.support.toys import SIDE, Workshop

DEVIATION = 0.6
CODE = f"""
from torch import nn

class Flow(nn.Module):
    '''The velocity of independent pixels of a normal distribution.'''
    prediction = "velocity"

    def forward(self, x, t):
        t = t.view(-1, 1, 1, 1)
        return (t - (1 - t) * {DEVIATION}**2) * x / ((1 - t) ** 2 * {DEVIATION}**2 + t**2)

class Noise(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, steps):
        return self.layer(x) + steps.view(-1, 1, 1, 1) / 100

def grey():
    return Noise(1)

def odd():
    network = Noise()
    network.prediction = "score"
    return network

class Small(Noise):
    def forward(self, x, steps):
        return super().forward(x, steps)[..., 1:]
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "my_model.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_velocity_gives_the_x_0_of_the_step_that_is_as_noisy(code, schedule):
    model = load_denoiser(f"{code}:Flow", image_size=SIDE, noise_schedule=schedule).respaced("", clip_denoised=False)
    x_t = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    for step in (0, 400, 990):
        found = model.process.p_mean_variance(model, x_t, torch.full((2,), step)).pred_xstart
        kept = model.process.alphas_cumprod.values[step]
        signal = kept.sqrt() * DEVIATION**2
        assert torch.allclose(found, signal * x_t / (kept * DEVIATION**2 + 1 - kept), rtol=1e-9, atol=1e-9)


def test_another_network_predicts_what_the_flags_say_at_the_chains_steps(code):
    model = load_denoiser(f"{code}:Noise", image_size=SIDE, diffusion_steps=50, predict_xstart=True)
    x, steps = torch.randn(2, 3, SIDE, SIDE), torch.tensor([3, 40])
    assert torch.equal(model(x, steps), model.network.network(x, steps))
    assert model.process.config.predict_xstart and model.process.num_timesteps == 50


def test_a_network_of_one_channel_is_found_by_trying(code):
    assert load_denoiser(f"{code}:grey", image_size=SIDE).channels == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "has no attribute 'none'"),
        ("odd", "prediction is score, wanted one of epsilon, sample, velocity"),
        ("Small", "wanted finite numbers of"),
    ],
)
def test_code_that_cannot_be_used_is_one_line(code, name, said):
    with pytest.raises(WeightsError, match=said):
        load_denoiser(f"{code}:{name}", image_size=SIDE)


def test_a_velocity_has_no_variance_and_its_size_is_asked_for(code):
    with pytest.raises(FlagError, match="has no variance"):
        load_denoiser(f"{code}:Flow", image_size=SIDE, learn_sigma=True)
    with pytest.raises(WeightsError, match="give image_size as"):
        load_denoiser(f"{code}:Flow")


def test_a_run_goes_on_with_the_same_code_and_only_who_types_it_runs_it(code, tmp_path):
    shop, source = Workshop(tmp_path), f"{code}:Flow"
    flags = {"model_path": source, "learn_sigma": None}
    shop.run(**flags, num_samples=1)
    assert shop.run(**flags, num_samples=2) == 0
    words = ["--output_path", str(shop.output), "--device", "cpu"]
    with pytest.raises(FlagError, match="is code .* only for who types it"):
        refine.main(words)
    refine.main([*words, "--model_path", source])
    assert list(shop.results().glob("all_filtered_*"))
    code.write_text(CODE + "\n")
    with pytest.raises(ValueError, match="model_path is another file"):
        shop.run(**flags)
