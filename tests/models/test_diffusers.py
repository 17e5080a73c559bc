"""A folder of diffusers is a diffusion model: its scheduler tells the process, its file the weights."""

import json

import pytest
import torch
import yaml

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.models.denoisers import load_denoiser
from ace_counterfactuals.models.loading import WeightsError
from tests.support.toys import SIDE, UNET, Workshop

diffusers = pytest.importorskip("diffusers")
LAYERS = {
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}


def save(folder, channels=3, network=None, **schedule):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=SIDE, in_channels=channels, out_channels=channels, **LAYERS, **network or {}
    )
    unet.save_pretrained(folder / "unet")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=100, clip_sample=False, **schedule)
    scheduler.save_pretrained(folder / "scheduler")
    return unet.eval(), scheduler


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_its_x_0_and_its_mean_are_those_of_the_schedulers_step(tmp_path, prediction_type, beta_schedule):
    unet, scheduler = save(tmp_path, prediction_type=prediction_type, beta_schedule=beta_schedule)
    model = load_denoiser(tmp_path, image_size=SIDE).respaced("", clip_denoised=False)
    x_t = torch.randn(2, 3, SIDE, SIDE)
    for t in (0, 40, 90):
        found = model.process.p_mean_variance(model, x_t, torch.full((2,), t))
        with torch.no_grad():
            step = scheduler.step(unet(x_t, t).sample, t, x_t, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(0)) if t else 0
        mean = step.prev_sample - scheduler._get_variance(t) ** 0.5 * noise
        # diffusers' tables are float32, whose eps is divided by sqrt(alphas_cumprod), 0.15 at the least.
        assert torch.allclose(found.pred_xstart, step.pred_original_sample, rtol=1e-3, atol=1e-3)
        assert torch.allclose(found.mean, mean, rtol=1e-3, atol=1e-3)


def test_pictures_are_explained_continued_and_checked_with_it(tmp_path):
    shop = Workshop(tmp_path)
    save(tmp_path / "ddpm")
    flags = {"model_path": tmp_path / "ddpm", "learn_sigma": None, "image_size": None, "diffusion_steps": None}
    shop.run(**flags, num_samples=2)
    shop.run(**flags, num_samples=4)
    recorded = yaml.safe_load((shop.results() / "config.yaml").read_text())["flags"]
    assert (recorded["diffusion_steps"], recorded["image_size"], recorded["learn_sigma"]) == (100, SIDE, False)
    save(tmp_path / "ddpm", beta_schedule="squaredcos_cap_v2")
    with pytest.raises(ValueError, match="model_path is another file"):
        shop.run(**flags)


def test_a_model_of_one_channel_takes_grey_pictures(tmp_path):
    save(tmp_path, channels=1)
    assert load_denoiser(tmp_path, image_size=SIDE).channels == 1


def test_a_folder_of_a_unet_alone_has_the_process_of_the_flags(tmp_path):
    save(tmp_path)
    with pytest.raises(WeightsError, match="give diffusion_steps and noise_schedule as"):
        load_denoiser(tmp_path / "unet")
    model = load_denoiser(tmp_path / "unet", diffusion_steps=50)
    assert model.process.num_timesteps == 50 and not model.process.config.learn_sigma


@pytest.mark.parametrize(
    ("flags", "field", "said"),
    [
        ({"image_size": 16}, "image_size", "16, but .* says 8"),
        ({"class_cond": True}, "class_cond", "True, but .* says False"),
        ({"diffusion_steps": 50}, "diffusion_steps", "50, but .* says 100"),
    ],
)
def test_flags_that_contradict_the_folder_are_refused_with_what_it_wants(tmp_path, flags, field, said):
    save(tmp_path)
    with pytest.raises(FlagError, match=said) as refused:
        load_denoiser(tmp_path, **flags)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "no schedule of a known kind"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}, "no schedule of a known kind"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type flow, wanted one of"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel, wanted"),
        ("unet/config.json", {"block_out_channels": [16, 16]}, "not the UNet2DModel"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_file(tmp_path, file, change, said):
    save(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=said):
        load_denoiser(tmp_path, image_size=SIDE)


def test_a_folder_without_weights_or_with_json_that_is_none_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="has no diffusion_pytorch_model.safetensors"):
        load_denoiser(tmp_path, image_size=SIDE)
    (tmp_path / "unet/config.json").write_text("{")
    with pytest.raises(WeightsError, match="config.json: cannot be read as JSON"):
        load_denoiser(tmp_path, image_size=SIDE)


def test_a_checkpoint_is_no_folder(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="is no diffusion U-Net"):
        load_denoiser(tmp_path / "w.pt", **{name: value for name, value in UNET.items() if name != "dropout"})
