"""A diffusion model with wrong flags, or of other pictures, is told from one with the right ones by a few calls."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ace_counterfactuals.core.method.config import SamplingConfig
from ace_counterfactuals.core.method.fit import fit
from ace_counterfactuals.core.method.task import Batch, Task
from ace_counterfactuals.models.denoisers import DiffusionModel, load_denoiser
from tests.support.paths import ROOT
from tests.support.toys import Workshop, make_diffusion


def photographs():
    """Two of the demo's."""
    files = [min((ROOT / "demo/pictures" / name).glob("*.png")) for name in ("coat", "sneaker")]
    levels = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
    return torch.from_numpy(levels)[:, None].float() / 255


def tried(model, image, share=0.5):
    process = model.process.respaced("4")
    sampling = SamplingConfig(timestep_respacing="4", sampling_time_fraction=share)
    task = Task(classifier=nn.Identity(), denoiser=model, diffusion=process, sampling=sampling)
    return fit(Batch(task, image, list(range(len(image))), torch.zeros(len(image), 10)))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({}, ""),
        ({"diffusion_steps": 1000}, "check diffusion_steps 1000"),
        ({"predict_xstart": True}, "check predict_xstart True"),
    ],
)
def test_of_the_demos_model_wrong_flags_alone_are_named(flags, named, tmp_path):
    (tmp_path / "ddpm.pt").symlink_to(ROOT / "demo/ddpm.pt")  # without what says there what it is
    found = tried(load_denoiser(tmp_path / "ddpm.pt", "fashion", **flags), photographs())
    assert named in found.fault and bool(named) == bool(found.fault)
    assert bool(named) == (255 * found.l1 > 10)


class Remembering(nn.Module):
    """The best guess of the noise for a few pictures, of which x_t is one."""

    def __init__(self, pictures, process):
        super().__init__()
        self.pictures, self.process = 2 * pictures - 1, process

    def forward(self, x_t, steps, classes=None):
        signal, noise = (
            table.at(steps, x_t)
            for table in (self.process.sqrt_alphas_cumprod, self.process.sqrt_one_minus_alphas_cumprod)
        )
        distance = ((x_t[:, None] - signal[:, None] * self.pictures) ** 2).flatten(2).sum(2)
        share = (-distance / (2 * noise.flatten(1) ** 2)).softmax(1)
        x_0 = (share[:, :, None, None, None] * self.pictures).sum(1)
        return (x_t - signal * x_0) / noise


WARM = torch.stack([torch.linspace(0, 1, 64).view(8, 8).roll(i, 0) for i in range(4)])[:, None] * torch.tensor(
    [1.0, 0.5, 0.1]
).view(3, 1, 1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda x: x, ""),
        (lambda x: x.flip(1), "shown their channels in reverse order"),
        (lambda x: 1 - x, "shown their negatives"),
        (lambda x: x.transpose(2, 3).flip(2), "of the noise; check what it was trained on"),
    ],
)
def test_pictures_that_it_does_not_know_are_named_by_what_makes_them_known(change, named):
    process = make_diffusion(diffusion_steps=100)
    found = tried(DiffusionModel(Remembering(WARM, process), process), change(WARM))
    assert named in found.fault and bool(named) == bool(found.fault)


def test_a_run_says_it_before_its_first_picture_and_not_again(tmp_path, capsys):
    shop = Workshop(tmp_path)
    shop.run(num_samples=1)
    assert "the diffusion model may be of other flags or pictures" in capsys.readouterr().err
    shop.run(num_samples=2)
    assert "the diffusion model may be" not in capsys.readouterr().err
