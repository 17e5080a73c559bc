"""The presets are the paper's settings, for the networks that the authors published."""

import shutil

import pytest
import torch
import yaml

from ace_counterfactuals.core.base.presets import PRESETS
from ace_counterfactuals.core.base.settings import flag_items, flags_of, to_dict
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.task import chain_of
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import check, diffusion_of
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet

# docs/original.md, section 9: parameters of the U-Net; picture; batch; iterations; respacing x fraction; inpaint.
PAPER = {
    "celeba": (105_198_598, 128, 3, 50, "50", 0.1, 0.15),
    "celebahq": (138_289_926, 256, 1, 50, "25", 0.2, 0.15),
    "bdd": (92_130_438, 256, 1, 50, "100", 0.05, 0.05),
    "imagenet": (552_814_086, 256, 1, 100, "25", 0.2, 0.15),
}
COMMON = {
    "attack_method": "PGD",
    "attack_step": 1.0,
    "attack_epsilon": 255.0,
    "attack_joint": True,
    "dist_l1": 0.001,
    "dist_l2": 0.0,
    "sampling_dilation": 15,
    "sampling_stochastic": True,
    "seed": 4,
    "use_fp16": True,
}
presets = pytest.mark.parametrize("preset", PAPER)


def settings(*argv) -> dict:
    return to_dict(parse(MainConfig, "", argv))


@presets
def test_the_unet_of_a_preset_is_the_published_one(preset):
    with torch.device("meta"):
        model = build_unet(settings("--preset", preset))
    assert sum(parameter.numel() for parameter in model.parameters()) == PAPER[preset][0]


@presets
def test_a_preset_has_the_settings_of_the_paper(preset):
    given = settings("--preset", preset)
    names = ("image_size", "batch_size", "attack_iterations", "timestep_respacing", "sampling_time_fraction")
    assert tuple(given[name] for name in (*names, "sampling_inpaint")) == PAPER[preset][1:]
    # The original's weight of 0.001 is against a loss that it averages over batches of 3; here losses are summed.
    wanted = COMMON | ({"dist_l1": 0.003} if preset == "celeba" else {})
    assert {name: given[name] for name in wanted} == wanted


@presets
def test_a_preset_denoises_five_steps(preset):
    config = parse(MainConfig, "", ["--preset", preset])
    check(config)
    assert chain_of(config.sampling, diffusion_of(config))[1] == 5


@presets
def test_a_preset_names_flags_alone_and_no_paths(preset):
    known, given = flag_items(MainConfig), yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    assert given.keys() <= known.keys()
    assert not [name for name in given if known[name].path]


@presets
def test_what_is_typed_wins_over_a_preset(preset):
    typed = settings("--dist_l1", "0.5", "--preset", preset, "--num_channels", "32", "--use_fp16", "False")
    untouched = settings("--preset", preset)
    assert typed == untouched | {"dist_l1": 0.5, "num_channels": 32, "use_fp16": False}


def test_a_copied_preset_works_by_its_path(tmp_path):
    copy = shutil.copy(PRESETS / "celeba.yaml", tmp_path / "mine.yaml")
    assert settings("--preset", str(copy)) == settings("--preset", "celeba")


def test_an_edited_copy_of_a_preset_counts(tmp_path):
    copy = tmp_path / "mine.yaml"
    copy.write_text((PRESETS / "celeba.yaml").read_text().replace("label_query: 31", "label_query: 39"))
    assert settings("--preset", str(copy)) == settings("--preset", "celeba") | {"label_query": 39}


def test_the_faces_are_asked_for_the_smile_if_nothing_is_typed():
    assert [settings("--preset", name)["label_query"] for name in ("celeba", "celebahq")] == [31, 31]


@pytest.mark.parametrize(("preset", "steps"), [("small", 2), ("photo", 5)])
def test_a_preset_for_a_first_look_fits_any_networks_and_pictures(preset, steps):
    given = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    of_the_method = flags_of(AttackConfig).keys() | flags_of(SamplingConfig).keys()
    assert given.keys() <= of_the_method
    config = parse(MainConfig, "", ["--preset", preset])
    check(config)
    assert chain_of(config.sampling, diffusion_of(config))[1] == steps
