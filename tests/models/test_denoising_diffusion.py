"""A checkpoint of denoising-diffusion-pytorch gives that package's predictions, by the process that its betas are.

tests/golden/denoising_diffusion.pt: the moving average of an untrained Unet(4, dim_mults=(1, 2), channels=1), and what
version 2.3.4 of the package computes with it (50 steps, the sigmoid schedule, pred_v).
"""

import numpy as np
import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.models.denoisers import load_denoiser, load_process
from ace_counterfactuals.models.denoising_diffusion import is_checkpoint, predicted
from ace_counterfactuals.models.loading import WeightsError
from tests.support.paths import GOLDEN
from tests.support.toys import SIDE, toy_unet

FILE = GOLDEN / "denoising_diffusion.pt"
AVERAGE = "ema_model.model."


def stored():
    return torch.load(FILE, weights_only=True)


def test_its_x_0_and_its_mean_are_the_packages():
    recorded = stored()["recorded"]
    model = load_denoiser(FILE, image_size=SIDE).respaced("", clip_denoised=False)
    found = model.process.p_mean_variance(model, recorded["x_t"], recorded["steps"])
    # float32: the package's tables too, of values up to 3.
    assert torch.allclose(found.pred_xstart, recorded["x_0"], atol=1e-5)
    assert torch.allclose(found.mean, recorded["mean"], atol=1e-5)
    assert model.channels == 1


def test_its_process_is_read_and_recorded():
    model = load_denoiser(FILE, image_size=SIDE)
    told = {
        "diffusion_steps": 50,
        "predict_xstart": True,
        "predict": "noise",
        "learn_sigma": False,
        "class_cond": False,
    }
    assert told.items() <= model.made_of.items()
    betas = stored()["ema"]["ema_model.betas"]
    assert np.allclose(model.process.betas, betas)
    assert np.allclose(load_process(FILE, image_size=SIDE).betas, betas)


def test_a_flag_against_the_file_is_refused_and_its_size_asked_for():
    with pytest.raises(FlagError, match="1000, but .* says 50"):
        load_denoiser(FILE, image_size=SIDE, diffusion_steps=1000)
    with pytest.raises(WeightsError, match="give image_size as"):
        load_denoiser(FILE)


@pytest.mark.parametrize("clipped", [np.inf, 5.0])
@pytest.mark.parametrize("steps", [50, 1000])
def test_what_it_predicts_is_told_by_the_weights_of_its_loss(steps, clipped):
    betas = np.linspace(0.1, 20, steps) / steps
    kept = np.cumprod(1 - betas)
    ratio = kept / (1 - kept)
    weight = np.minimum(ratio, clipped)
    assert predicted(betas, weight / ratio) == "noise"
    assert predicted(betas, weight) == "x_0"
    assert predicted(betas, weight / (ratio + 1)) == "v"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("downs.0.0.block1.norm.g", "is of an old"),
        ("mid_attn.mem_kv", "is not the U-Net"),
        ("init_conv.bias", "lacks 1"),
    ],
)
def test_an_incomplete_file_is_refused_in_one_line(tmp_path, name, said):
    tree = stored()
    del tree["ema"][AVERAGE + name]
    torch.save(tree, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=said):
        load_denoiser(tmp_path / "x.pt", image_size=SIDE)


def test_another_checkpoint_is_none_of_these(tmp_path):
    torch.save(toy_unet().state_dict(), tmp_path / "unet.pt")
    (tmp_path / "text.pt").write_text("no archive")
    assert is_checkpoint(FILE)
    assert not any(map(is_checkpoint, (tmp_path / "unet.pt", tmp_path / "text.pt", tmp_path, "https://x.org/m.pt")))
