"""The one door for diffusion models: a file of guided-diffusion, and sources that others add."""

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.lean import laid_out
from ace_counterfactuals.models import denoisers
from ace_counterfactuals.models.denoisers import DiffusionModel, Source, load_denoiser
from tests.support.unet_cases import TOY, toy_unet

FLAGS = {name: value for name, value in TOY.items() if name not in ("dropout", "use_checkpoint")}
X, STEPS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 40])


@pytest.fixture()
def checkpoint(tmp_path):
    torch.save(toy_unet().state_dict(), tmp_path / "unet.pt")
    return tmp_path / "unet.pt"


def test_a_checkpoint_comes_with_the_process_that_it_was_trained_on(checkpoint):
    model = load_denoiser(checkpoint, **FLAGS, diffusion_steps=100, noise_schedule="cosine")
    assert torch.equal(model(X, STEPS), laid_out(toy_unet())(X, STEPS))
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.process.config == DiffusionConfig(learn_sigma=True, diffusion_steps=100, noise_schedule="cosine")
    assert (model.process.num_timesteps, model.respaced("10").process.num_timesteps) == (100, 10)
    assert model.respaced("10").process.clip_denoised
    assert not model.respaced("10", clip_denoised=False).process.clip_denoised


def test_a_preset_says_the_settings_and_keywords_go_before_it(checkpoint, tmp_path):
    lines = [f"{name}: {value!r}" for name, value in FLAGS.items()]
    preset = tmp_path / "toy.yaml"
    preset.write_text("\n".join([*lines, "diffusion_steps: 60", "attack_iterations: 7"]))
    assert load_denoiser(checkpoint, str(preset)).process.num_timesteps == 60
    assert load_denoiser(checkpoint, str(preset), diffusion_steps=50).process.num_timesteps == 50


@pytest.mark.parametrize(
    ("field", "said", "change"),
    [
        ("num_channels", "has 32", {"num_channels": 64, "num_res_blocks": 2}),
        ("num_heads", "out of range", {"num_heads": 0}),
        ("preset", "no such preset", {"preset": "celebb"}),
        ("learn_sigma", "has True", {"learn_sigma": False}),
        ("channel_mult", "has 1,2", {"channel_mult": ""}),
        ("noise_schedule", "at least 21", {"diffusion_steps": 20}),
        ("num_chanels", "did you mean num_channels", {"num_chanels": 32}),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_what_the_file_wants(checkpoint, field, said, change):
    with pytest.raises(FlagError) as refused:
        load_denoiser(checkpoint, **{**FLAGS, **change})
    assert refused.value.field == field and said in refused.value.reason


def test_more_steps_than_the_chain_has_are_refused(checkpoint):
    with pytest.raises(FlagError) as refused:
        load_denoiser(checkpoint, **FLAGS, diffusion_steps=1000).respaced("2000")
    assert refused.value.field == "timestep_respacing"


def test_half_precision_is_the_devices(checkpoint, monkeypatch):
    monkeypatch.setattr(denoisers, "half_precision", lambda device: torch.bfloat16)
    model = load_denoiser(checkpoint, **FLAGS, diffusion_steps=100, use_fp16=True)
    assert model.network.middle_block[1].qkv.weight.dtype == torch.float32
    assert model.to("cpu").network.middle_block[1].qkv.weight.dtype == torch.bfloat16


def test_another_source_is_one_function(monkeypatch):
    """As a user's module adds one: nothing else is touched."""

    def load_zeros(source, config):
        process = GaussianDiffusion(config.diffusion)
        return DiffusionModel(lambda x_t, steps, classes: torch.zeros_like(x_t), process)

    mine = Source(lambda source: str(source).startswith("zeros:"), load_zeros)
    monkeypatch.setattr(denoisers, "SOURCES", [mine, *denoisers.SOURCES])
    model = load_denoiser("zeros:", diffusion_steps=50)
    posterior = model.respaced("5").process.p_mean_variance(model, X, torch.tensor([4, 4]))
    assert not model(X, STEPS).any() and posterior.mean.shape == X.shape
