"""The distance of samples to pictures while a model is trained."""

from dataclasses import replace

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError, from_dict, to_dict
from ace_counterfactuals.core.data.imageset import open_pictures
from ace_counterfactuals.core.training import diffusion, sampling
from ace_counterfactuals.core.training import frechet as module
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.frechet import Frechet, write_distance
from tests.support.toys import toy_unet, write_classifier, write_pictures


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "SHORT", 2)
    flags = {
        "dataset": "Folder",
        "data_dir": str(write_pictures(tmp_path / "pictures")),
        "image_size": 8,
        "num_workers": 0,
    }
    flags |= {"fid_network": str(write_classifier(tmp_path / "c.pt")), "fid_samples": 5, "diffusion_steps": 30}
    return from_dict(TrainDiffusionConfig, flags | {"learn_sigma": True})


def frechet(config, condition=None):
    return Frechet(config, open_pictures(config.pictures, split="train"), condition, torch.device("cpu"))


def test_samples_that_are_the_pictures_are_at_no_distance(config, monkeypatch):
    one = frechet(config)
    there = torch.stack([one.images[i].image for i in one.chosen])
    monkeypatch.setattr(module, "sampled", lambda model, numbers, *rest: there[numbers])
    assert one.of(toy_unet()) == pytest.approx(0, abs=1e-9)
    monkeypatch.setattr(module, "sampled", lambda model, numbers, *rest: 1 - there[numbers])
    assert one.of(toy_unet()) > 1e-6


def test_the_distance_is_of_the_weights_and_the_seed_alone(config):
    one = frechet(config)
    assert one.of(toy_unet()) == one.of(toy_unet()) != one.of(toy_unet(num_channels=64))
    torch.manual_seed(5)
    assert frechet(config).of(toy_unet()) == one.of(toy_unet())


def test_samples_of_a_conditional_model_are_of_the_pictures_classes(config):
    one, network = frechet(config, torch.arange(6) % 3), toy_unet(num_classes=3, class_cond=True)
    assert one.of(network) != frechet(config, torch.zeros(6, dtype=torch.int64)).of(network)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"fid_samples": 7}, "fid_samples", "there are 6 pictures"),
        ({"fid_network": "none.pt"}, "fid_network", "no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused(config, changes, field, said):
    with pytest.raises(FlagError, match=said) as caught:
        frechet(replace(config, training=replace(config.training, **changes)))
    assert caught.value.field == field


def test_a_line_of_a_checkpoint_takes_the_place_of_those_of_later_ones(tmp_path):
    path = tmp_path / "fid.csv"
    for step, value in ((10, 3.0), (20, 2.0), (30, 1.5), (20, 2.5)):
        write_distance(path, step, value)
    assert path.read_text() == "step,fid\n10,3.0000\n20,2.5000\n"


def test_a_training_tells_the_distance_at_each_checkpoint_with_samples(config, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "SAMPLES", 2)
    flags = to_dict(config) | {"lr_anneal_steps": 4, "save_interval": 2, "device": "cpu", "output_path": str(tmp_path)}
    flags |= {"num_channels": 32, "channel_mult": "1", "num_res_blocks": 1, "attention_resolutions": ""}
    diffusion.train(from_dict(TrainDiffusionConfig, flags))
    head, *lines = (tmp_path / "fid.csv").read_text().splitlines()
    assert head == "step,fid" and [line.split(",")[0] for line in lines] == ["2", "4"]
    assert all(float(line.split(",")[1]) > 0 for line in lines)
