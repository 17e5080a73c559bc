"""What train_diffusion.py chooses for pictures and minutes, and keeps; where it stops; where it does not write."""

import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.reading import read_yaml
from ace_counterfactuals.core.base.settings import FlagError, from_dict, to_dict
from ace_counterfactuals.core.training import diffusion, sizing
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.sizing import Cost, candidates, levels_of, settled, side_of, to_choose
from ace_counterfactuals.guided_diffusion.config import UNetConfig
from tests.support.toys import tree
from tests.training.test_stopping_training import compared, few_samples, pictures, signalled, stopping, train

__all__ = ["few_samples", "pictures"]  # fixtures

CHOSEN = {"choose": True, "max_minutes": 1, "lr_anneal_steps": 0, **dict.fromkeys(sizing.UNET)}


def config_of(pictures, output, **changes):
    values = {"dataset": "Folder", "data_dir": str(pictures), "output_path": str(output), "device": "cpu"}
    return from_dict(TrainDiffusionConfig, {**values, **read_preset(TrainDiffusionConfig, "small-ddpm"), **changes})


def steps_take(monkeypatch, seconds):
    """By the width of the network, or all the same."""
    take = seconds if isinstance(seconds, dict) else {32: seconds, 64: seconds, 128: seconds}
    monkeypatch.setattr(sizing, "cost_of", lambda config, images: Cost(1, take[config.model.num_channels]))


def opened(folder, count, size=(28, 28)):
    """As if the one picture of a folder were so many."""
    folder.mkdir(exist_ok=True)
    Image.new("L", size).save(folder / "0.png")
    images = diffusion.training_images(config_of(folder, folder))
    return replace(images, records=images.records * count)


@pytest.mark.parametrize(
    ("size", "side"), [((28, 28), 28), ((33, 40), 32), ((300, 200), 64), ((64, 64), 64), ((5, 5), 8), ((63, 70), 56)]
)
def test_the_model_has_the_size_of_the_pictures_where_they_are_small(tmp_path, size, side):
    assert side_of(opened(tmp_path, 1, size)) == side


@pytest.mark.parametrize("side", range(8, 65, 4))
def test_each_size_has_a_network_whose_last_level_has_attention(tmp_path, side):
    config = config_of(tmp_path, tmp_path, image_size=side)
    for one in candidates(config, 10**6, to_choose(config)):
        flags = to_dict(one)
        network = UNetConfig(**{name: flags[name] for name in UNetConfig.__dataclass_fields__ if name in flags})
        assert network.attention == (2 ** (levels_of(side) - 1),)


def settled_for(tmp_path, monkeypatch, count, seconds):
    """What is chosen for so many pictures where a step takes so long."""
    steps_take(monkeypatch, seconds)
    images = opened(tmp_path, count)
    monkeypatch.setattr(sizing, "training_images", lambda *_: images)
    return settled(config_of(tmp_path, tmp_path / "out"))


def test_a_wide_network_is_chosen_where_many_pictures_and_steps_are(tmp_path, monkeypatch):
    def chosen(count, seconds):
        return settled_for(tmp_path, monkeypatch, count, seconds).model.num_channels

    fast, slow = {32: 0.01, 64: 0.02, 128: 0.04}, {32: 0.1, 64: 0.2, 128: 0.4}
    assert [chosen(10**3, fast), chosen(10**4, fast), chosen(10**5, fast)] == [32, 64, 128]
    assert [chosen(10**5, slow), chosen(10**5, {**fast, 128: 9})] == [64, 64]


def test_the_steps_are_those_that_fit_into_the_minutes_but_few_pictures_are_not_learnt_by_heart(tmp_path, monkeypatch):
    def steps(count, seconds):
        return settled_for(tmp_path, monkeypatch, count, seconds).training.lr_anneal_steps

    assert (steps(10**4, 1), steps(10**4, 4), steps(32, 0.01)) == (1620, 405, sizing.PASSES)


def test_what_is_given_is_not_chosen(pictures, tmp_path, monkeypatch):
    steps_take(monkeypatch, 1)
    given = {"num_channels": 64, "channel_mult": "1,1", "image_size": 16, "lr_anneal_steps": 7, "save_interval": 3}
    flags = to_dict(settled(config_of(pictures, tmp_path, **given), given))
    assert {name: flags[name] for name in given} == given and flags["attention_resolutions"] == "8"


def test_minutes_alone_choose_the_steps_alone(pictures, tmp_path, monkeypatch):
    steps_take(monkeypatch, 1)
    before = config_of(pictures, tmp_path, choose=False, max_minutes=10.0, image_size=8)
    after = settled(before)
    assert after.training.lr_anneal_steps == 540 and after.model == before.model
    assert settled(replace(before, training=replace(before.training, lr_anneal_steps=9))).training.lr_anneal_steps == 9


def test_nothing_is_chosen_without_minutes(pictures, tmp_path):
    with pytest.raises(FlagError) as caught:
        settled(config_of(pictures, tmp_path, max_minutes=0.0))
    assert caught.value.field == "max_minutes"


def test_a_step_is_timed_with_the_network_and_the_pictures(pictures, tmp_path):
    config = settled(config_of(pictures, tmp_path, max_minutes=1.0, batch_size=2, use_fp16=False))
    flags = to_dict(config)
    assert (flags["image_size"], flags["num_channels"], flags["channel_mult"]) == (8, 32, "1")
    assert 1 <= flags["lr_anneal_steps"] <= -(-sizing.PASSES * 6 // 2) and not (tmp_path / "config.yaml").exists()


def test_a_stopped_training_goes_on_with_what_was_chosen_whatever_a_step_takes_now(
    pictures, tmp_path, monkeypatch, capfd
):
    steps_take(monkeypatch, 10.0)
    with monkeypatch.context() as patch:
        stopping(patch, signalled(signal.SIGINT), 1)
        assert train(pictures, tmp_path, **CHOSEN) == 130
    said = "image_size 8, num_channels 32, channel_mult 1, attention_resolutions 8, save_interval 1, lr_anneal_steps 5"
    assert f"chosen for 6 pictures and 1 minutes: {said}" in capfd.readouterr().err
    steps_take(monkeypatch, 0.001)
    assert train(pictures, tmp_path, **CHOSEN) == 0
    recorded = read_yaml(tmp_path / "config.yaml")
    assert (recorded["choose"], recorded["lr_anneal_steps"]) == (True, 5) and (tmp_path / "model000005.pt").exists()


def test_when_the_minutes_are_over_there_is_a_checkpoint_with_samples_and_the_same_command_goes_on(
    pictures, tmp_path, monkeypatch, capfd
):
    assert train(pictures, tmp_path / "whole") == 0
    stopped = tmp_path / "stopped"
    for step in (1, 2):
        assert train(pictures, stopped, max_minutes=1e-9) == 0
        assert f"minutes are over after step {step} of 10; the same command goes on" in capfd.readouterr().err
        assert {f"ema_0.5_{step:06d}.pt", f"samples{step:06d}.png"} <= {path.name for path in stopped.iterdir()}
    assert train(pictures, stopped) == 0
    assert compared(stopped) == compared(tmp_path / "whole")
    assert (stopped / "loss.png").exists()


def test_a_check_says_parameters_and_steps_and_writes_nothing(pictures, tmp_path, capfd):
    before = tree(tmp_path)
    assert train(pictures, tmp_path / "out", check=True) == 0
    printed = capfd.readouterr().out
    assert "million parameters" in printed and "a step of 4 pictures of 8 x 8 here; 10 steps in" in printed
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["config.yaml", "log.csv", "loss.png"])
def test_a_file_of_something_else_is_not_written_over(pictures, tmp_path, capfd, name):
    (tmp_path / name).write_text("lr: 3\n")
    before = tree(tmp_path)
    assert train(pictures, tmp_path) == 2
    assert f"--output_path {tmp_path}: has a {name} of something else;" in capfd.readouterr().err
    assert tree(tmp_path) == before


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_again(pictures, tmp_path):
    assert train(pictures, tmp_path, lr_anneal_steps=1) == 0
    for path in tmp_path.iterdir():
        if path.name not in ("config.yaml", "log.csv"):
            path.unlink()
    assert train(pictures, tmp_path, lr_anneal_steps=1) == 0


def test_a_warmed_up_average_forgets_how_the_training_began(pictures, tmp_path):
    def average_of(folder, **changes):
        assert train(pictures, folder, lr_anneal_steps=3, lr=0.01, ema_rate=0.9999, **changes) == 0
        tensors = (compared(folder)[name] for name in ("model000003.pt", "ema_0.9999_000003.pt"))
        return [np.frombuffer(tree["time_embed.0.weight"], np.float32) for tree in tensors]

    (model, plain), (same, warmed) = average_of(tmp_path / "a"), average_of(tmp_path / "b", ema_warmup=True)
    assert np.array_equal(model, same)
    assert np.abs(warmed - model).max() < np.abs(plain - model).max() / 2
