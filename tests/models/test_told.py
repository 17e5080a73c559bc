"""What a diffusion model is, is read: from the YAML beside its weights, or from their shapes; the rest is asked for."""

import logging

import pytest
import torch
import yaml

from ace_counterfactuals.core.base.settings import FlagError, from_dict, to_dict
from ace_counterfactuals.core.cli import refine
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.guided_diffusion.lean import laid_out
from ace_counterfactuals.models.denoisers import load_denoiser
from ace_counterfactuals.models.loading import WeightsError
from ace_counterfactuals.models.told import newest
from tests.support.toys import SIDE, UNET, Workshop, toy_unet

TRAINED = {**UNET, "diffusion_steps": 100, "noise_schedule": "cosine", "num_heads": 2}
X, STEPS = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 40])
NEEDED = {"image_size": SIDE, "diffusion_steps": 100, "num_heads": 2}


def save(folder, name="ema_0.9999_000004.pt", **changes):
    folder.mkdir(exist_ok=True)
    torch.save(toy_unet(**{"num_heads": 2, **changes}).state_dict(), folder / name)
    return folder / name


def test_of_a_folder_the_last_average_is_taken_and_of_several_the_slowest(tmp_path):
    for name in ("0.9999_000004", "0.99_000010", "0.999_000010", "0.9_000010", "x_000011"):
        (tmp_path / f"ema_{name}.pt").touch()
    assert newest(tmp_path) == str(tmp_path / "ema_0.999_000010.pt")


def describe(file, **changes):
    """As train_diffusion.py does."""
    file.write_text(yaml.safe_dump(to_dict(from_dict(TrainDiffusionConfig, {**TRAINED, **changes}))))
    return file


@pytest.fixture
def trained(tmp_path):
    describe(tmp_path / "config.yaml")
    return save(tmp_path)


def flags_of(model):
    return {name: model.made_of[name] for name in TRAINED if name not in ("dropout", "use_checkpoint")}


def test_the_yaml_of_its_training_tells_all_flags(trained):
    model = load_denoiser(trained)
    assert flags_of(model).items() <= TRAINED.items()
    assert torch.equal(model(X, STEPS), laid_out(toy_unet(num_heads=2))(X, STEPS))
    assert not model.half


def test_a_yaml_of_the_files_own_name_goes_before_that_of_the_folder(trained):
    trained.with_suffix(".yaml").write_text(yaml.safe_dump({**TRAINED, "diffusion_steps": 60}))
    assert load_denoiser(trained).made_of["diffusion_steps"] == 60


@pytest.mark.parametrize(
    "typed",
    [
        {"num_channels": 64},
        {"diffusion_steps": 500},
        {"num_heads": 4},
        {"image_size": 16},
        {"channel_mult": "2"},
        {"predict_xstart": True},
    ],
)
def test_a_flag_typed_against_the_yaml_is_refused_with_both_values(trained, typed):
    (name, value), *_ = typed.items()
    with pytest.raises(FlagError) as refused:
        load_denoiser(trained, **typed)
    assert refused.value.field == name
    assert refused.value.reason.startswith(f"{value}, but {trained.parent}/config.yaml says {TRAINED.get(name, False)}")


def test_another_spelling_of_the_same_network_is_no_contradiction(tmp_path):
    describe(tmp_path / "config.yaml", image_size=64, channel_mult="", attention_resolutions="16,8")
    path = save(tmp_path, image_size=64, channel_mult="", attention_resolutions="16,8")
    model = load_denoiser(path, channel_mult="1,2,3,4", attention_resolutions="8,16")
    assert model.network.config.mult == (1, 2, 3, 4)


def test_a_yaml_goes_before_a_preset_and_that_is_said(trained, tmp_path, caplog):
    preset = tmp_path / "mine.yaml"
    preset.write_text("num_channels: 64\ndiffusion_steps: 500\nattack_step: 2\n")
    with caplog.at_level(logging.INFO):
        assert load_denoiser(trained, str(preset)).made_of["diffusion_steps"] == 100
    assert "goes before the preset, which says num_channels 64, diffusion_steps 500" in caplog.text


def test_shapes_tell_what_no_yaml_tells(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        model = load_denoiser(save(tmp_path), **NEEDED)
    assert flags_of(model).items() <= {**TRAINED, "noise_schedule": "linear"}.items()
    assert "the weights tell num_channels 32" in caplog.text


def test_what_fits_the_defaults_stays_as_it_is(tmp_path):
    path = save(tmp_path, image_size=28, channel_mult="", attention_resolutions="14")
    assert load_denoiser(path, **{**NEEDED, "image_size": 28}).made_of["channel_mult"] == ""


def test_all_that_nobody_tells_is_asked_for_at_once(tmp_path):
    said = "give image_size, diffusion_steps and noise_schedule, num_heads or num_head_channels as in its training"
    with pytest.raises(WeightsError, match=said):
        load_denoiser(save(tmp_path))
    with pytest.raises(WeightsError, match="give num_heads or num_head_channels as"):
        load_denoiser(save(tmp_path), image_size=SIDE, diffusion_steps=100)


def test_a_yaml_of_other_weights_is_named(tmp_path):
    describe(tmp_path / "config.yaml", num_channels=64, learn_sigma=False)
    said = "config.yaml says num_channels 64, but the weights have 32; learn_sigma False, but the weights have True"
    with pytest.raises(WeightsError, match=said):
        load_denoiser(save(tmp_path))


def test_a_file_of_improved_diffusion_takes_the_flags_of_its_readme(tmp_path):
    """Its default of channel_mult for 32 pixels is none of guided-diffusion's."""
    path = save(tmp_path, image_size=32, channel_mult="1,2,2,2", attention_resolutions="16,8", resblock_updown=False)
    readme = {
        "image_size": 32,
        "num_channels": 32,
        "num_res_blocks": 1,
        "learn_sigma": True,
        "noise_schedule": "cosine",
    }
    model = load_denoiser(path, **readme, diffusion_steps=4000, num_heads=2, rescale_timesteps=True)
    assert model.network.config.mult == (1, 2, 2, 2) and model.process.num_timesteps == 4000


STRANGE = {
    "other keys": "model: {target: ldm.Unet}\nimage_size: 64\n",
    "a list": "- 1\n",
    "code": "!!python/object/apply:os.system ['true']\n",
    "an alias": "a: &a 1\nb: *a\n",
    "no yaml": "a: [\n",
    "other kinds": yaml.safe_dump({"num_channels": [32], "diffusion_steps": 10**18, "num_heads": "many"}),
    "long": yaml.safe_dump({"num_channels": 32, "diffusion_steps": 100, "channel_mult": "1," * 200}),
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_the_yaml_of_another_program_is_left(tmp_path, text):
    path = save(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert load_denoiser(path, **NEEDED).process.num_timesteps == 100


def test_the_yaml_of_a_training_is_a_preset_of_what_describes_its_model(trained):
    values = to_dict(parse(MainConfig, "", ["--preset", str(trained.parent / "config.yaml")]))
    own = {name: value for name, value in TRAINED.items() if name not in ("dropout", "use_checkpoint")}
    assert own.items() <= values.items()
    assert values["output_path"] == "results" and values["batch_size"] == 16


DESCRIBED = {name: None for name in (*TRAINED, "diffusion_steps")}


def test_a_run_records_what_it_read_and_goes_on_by_that(tmp_path):
    shop, path = Workshop(tmp_path), save(tmp_path / "ddpm", "ema_0.9999_000004.pt")
    describe(tmp_path / "ddpm/config.yaml")
    shop.run(**DESCRIBED, model_path=tmp_path / "ddpm", num_samples=1)
    recorded = yaml.safe_load((shop.results() / "config.yaml").read_text())["flags"]
    assert recorded["model_path"] == str(path) and recorded["noise_schedule"] == "cosine"
    save(tmp_path / "ddpm", "ema_0.9999_000008.pt")
    (tmp_path / "ddpm/config.yaml").unlink()
    assert shop.run(**DESCRIBED, model_path=tmp_path / "ddpm", num_samples=2) == 0
    with pytest.raises(ValueError, match="noise_schedule linear"):
        shop.run(**DESCRIBED | {"noise_schedule": "linear"}, model_path=path)


def test_postprocessing_reads_the_flags_of_another_model(tmp_path):
    shop, other = Workshop(tmp_path), tmp_path / "other"
    shop.run(num_samples=1)
    path = save(other, num_channels=64)
    describe(other / "config.yaml", num_channels=64)
    refine.main(["--output_path", str(shop.output), "--model_path", str(path), "--device", "cpu"])
    (folder,) = shop.results().glob("all_filtered_*")
    assert yaml.safe_load((folder / "config.yaml").read_text())["flags"]["num_channels"] == 64


def test_a_typed_flag_that_contradicts_the_yaml_ends_a_command_in_one_line(tmp_path, capsys):
    shop = Workshop(tmp_path)
    describe(shop.model.with_suffix(".yaml"), num_heads=4, diffusion_steps=500)
    assert shop.exit_code() == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: --diffusion_steps 100, but ") and "model.yaml says 500" in said
