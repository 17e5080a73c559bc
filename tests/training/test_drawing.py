"""train_diffusion.py --sample: pictures by number and seed alone, as many as are asked for, from any model."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ace_counterfactuals.core.cli import train_diffusion
from ace_counterfactuals.core.data.config import PicturesConfig
from ace_counterfactuals.core.training import sampling
from ace_counterfactuals.core.training.config import DrawingConfig, TrainDiffusionConfig
from ace_counterfactuals.models.denoisers import DiffusionModel
from ace_counterfactuals.models.loading import save_weights
from tests.support.toys import SIDE, exit_code, make_diffusion, toy_unet, tree


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of a model in colour, of a grey one, and of one of three classes."""
    folder = tmp_path_factory.mktemp("models")
    save_weights(folder / "colour.pt", toy_unet().state_dict())
    save_weights(folder / "grey.pt", toy_unet(in_channels=1).state_dict())
    save_weights(folder / "classes.pt", toy_unet(num_classes=3, class_cond=True).state_dict())
    return folder


def draw(model, output, sample=5, **changes):
    flags = {"image_size": SIDE, "diffusion_steps": 100, "num_heads": 4, "timestep_respacing": "4", "device": "cpu"}
    flags |= {"sample": sample, "model_path": model, "output_path": output, **changes}
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    return exit_code(lambda: train_diffusion.main(words))


def levels(folder):
    return np.stack([np.asarray(Image.open(path)).astype(int) for path in sorted(folder.glob("0*.png"))])


@pytest.mark.parametrize("ddim", [False, True])
def test_a_picture_depends_on_its_number_and_the_seed_alone(models, tmp_path, ddim):
    for name, changes in (("all", {}), ("one", {"batch_size": 1}), ("few", {"sample": 2}), ("other", {"seed": 5})):
        assert draw(models / "colour.pt", tmp_path / name, **{"use_ddim": ddim, **changes}) == 0
    pictures = {name: levels(tmp_path / name) for name in ("all", "one", "few", "other")}
    assert abs(pictures["all"] - pictures["one"]).max() <= 1  # of rounding to 8 bits
    assert abs(pictures["all"][:2] - pictures["few"]).max() <= 1 and len(pictures["few"]) == 2
    assert (
        abs(pictures["all"] - pictures["other"]).max() > 20 and abs(pictures["all"][0] - pictures["all"][1]).max() > 20
    )


def test_the_same_command_draws_what_is_missing_and_more_where_more_is_asked_for(models, tmp_path, monkeypatch):
    assert draw(models / "colour.pt", tmp_path / "whole", batch_size=1) == 0
    assert draw(models / "colour.pt", tmp_path / "parts", batch_size=1, sample=3) == 0
    (tmp_path / "parts/0000001.png").unlink()
    drawn, real = [], sampling.sampled

    def sampled(model, indices, *rest):
        drawn.append(indices)
        return real(model, indices, *rest)

    monkeypatch.setattr(sampling, "sampled", sampled)
    assert draw(models / "colour.pt", tmp_path / "parts", batch_size=1) == 0
    assert drawn == [[1], [3], [4]]
    files = (tree(tmp_path / name, without=("lock", "samples.yaml")) for name in ("whole", "parts"))
    assert next(files) == next(files)


def test_pictures_have_the_channels_of_the_model(models, tmp_path):
    assert draw(models / "grey.pt", tmp_path) == 0
    assert levels(tmp_path).shape == (5, SIDE, SIDE)


def test_classes_are_taken_in_turn_and_attributes_together(models, tmp_path):
    assert draw(models / "classes.pt", tmp_path / "all", batch_size=1) == 0
    assert (tmp_path / "all/labels.csv").read_text().split()[1:] == [f"000000{i}.png,{i % 3}" for i in range(5)]
    assert draw(models / "classes.pt", tmp_path / "second", sample_classes="1", batch_size=1) == 0
    assert draw(models / "classes.pt", tmp_path / "both", sample_classes="0+1", batch_size=1) == 0
    all_, second, both = (levels(tmp_path / name) for name in ("all", "second", "both"))
    assert np.array_equal(all_[1], second[1]) and not np.array_equal(all_[0], second[0])
    assert not np.array_equal(both[0], all_[0]) and not np.array_equal(both[0], second[0])
    assert (tmp_path / "both/labels.csv").read_text().split()[1] == "0000000.png,0+1"


class Exact(nn.Module):
    """E[eps | x_t] for pictures that are all ``level``."""

    def __init__(self, level, steps):
        super().__init__()
        self.level, self.a_bar = nn.Parameter(torch.tensor(level)), steps.float()

    def forward(self, x, t, y=None):
        a = self.a_bar[t].view(-1, 1, 1, 1)
        return (x - a.sqrt() * self.level) / (1 - a).sqrt()


@pytest.mark.parametrize("respacing", ["", "7", "ddim10"])
@pytest.mark.parametrize("ddim", [False, True])
def test_the_exact_network_draws_the_data(respacing, ddim):
    whole = make_diffusion(diffusion_steps=100)
    model = DiffusionModel(Exact(0.4, whole.alphas_cumprod.values), whole).respaced(respacing)
    pictures = PicturesConfig(dataset="Folder", image_size=8)
    config = TrainDiffusionConfig(pictures=pictures, drawing=DrawingConfig(use_ddim=ddim))
    drawn = sampling.sampled(model, [0, 1], config, None)
    assert drawn.shape == (2, 3, 8, 8)
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.7), atol=1e-4, rtol=0)


def test_a_step_of_ddim_is_that_of_its_definition():
    process, rng = make_diffusion(diffusion_steps=100, timestep_respacing="5"), np.random.default_rng(0)
    x_t, x_0 = (torch.from_numpy(rng.standard_normal((2, 1, 2, 2))) for _ in range(2))
    a_bar = process.alphas_cumprod.values
    found = process.ddim_step(x_t, x_0, torch.tensor([3, 0]))
    eps = (x_t - a_bar[3].sqrt() * x_0) / (1 - a_bar[3]).sqrt()
    torch.testing.assert_close(found[0], (a_bar[2].sqrt() * x_0 + (1 - a_bar[2]).sqrt() * eps)[0])
    assert torch.equal(found[1], x_0[1])


REFUSED = [
    ({"model_path": None}, "--model_path is not given"),
    ({"model_path": "nowhere.pt"}, "--model_path nowhere.pt: no such file"),
    ({"lr": 0.1}, "--lr 0.1: of no use with sample"),
    ({"timestep_respacing": "200"}, "--timestep_respacing 200"),
    ({"sample_classes": "1"}, "--sample_classes 1: the model takes no classes"),
    ({"sample": None}, "--model_path is a flag of drawing"),
    ({"sample": -1}, "--sample -1: out of range"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_be_drawn_is_one_line(models, tmp_path, capfd, changes, said):
    changes = {"model_path": models / "colour.pt", **changes}
    assert draw(changes.pop("model_path"), tmp_path, **changes) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"error: {said}")


@pytest.mark.parametrize("text", ["3", "a", "0,,1", "0+", "-1"])
def test_classes_that_there_are_not_are_refused(models, tmp_path, capfd, text):
    assert draw(models / "classes.pt", tmp_path, sample_classes=text) == 2
    assert f"--sample_classes {text}: wanted numbers from 0 to 2" in capfd.readouterr().err.splitlines()[-1]


def test_a_folder_of_other_pictures_or_samples_is_refused(models, tmp_path, capfd):
    assert draw(models / "colour.pt", tmp_path / "one", sample=1) == 0
    assert draw(models / "colour.pt", tmp_path / "one", sample=1, seed=7) == 2
    assert "has samples of another seed" in capfd.readouterr().err.splitlines()[-1]
    (tmp_path / "one/samples.yaml").unlink()
    assert draw(models / "colour.pt", tmp_path / "one", sample=1) == 2
    assert "has pictures of something else" in capfd.readouterr().err.splitlines()[-1]
