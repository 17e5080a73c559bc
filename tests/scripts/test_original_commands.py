"""What one types for the original runs here unchanged, for each data set: its flags and spellings, at toy size."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ace_counterfactuals.core.base.settings import to_dict
from ace_counterfactuals.core.cli import refine
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.paths import GOLDEN

DATA = GOLDEN / "data"

# Toy size: 32 channels, 1 block, small pictures, 1 iteration, 1 picture.  The flags are those of docs/original.md,
# section 9; where a smaller picture would move the attention or has no default of channel_mult, these two go with it.
MODEL = """--class_cond False --learn_sigma True --noise_schedule linear --num_channels 32 --num_res_blocks 1
    --resblock_updown True --use_scale_shift_norm True --use_fp16 True"""
ATTACK = """--attack_method PGD --attack_iterations 1 --attack_joint True --dist_l1 0.001 --attack_step 1.0
    --attack_epsilon 255 --sampling_dilation 15 --sampling_stochastic True --seed 4 --gpu 0 --num_samples 1"""
COMMANDS = {
    "celeba": f"""{MODEL} --diffusion_steps 500 --num_heads 4 --channel_mult 1,2,3,4
        --attention_resolutions 16,8,4 --image_size 32
        {ATTACK} --batch_size 3 --timestep_respacing 50 --sampling_time_fraction 0.1 --sampling_inpaint 0.15
        --attack_joint_checkpoint True --attack_checkpoint_backward_steps 1
        --dataset CelebA --data_dir DATA/celeba --model_path unet_celeba.pt --classifier_path dive.pth
        --label_query 31 --label_target -1 --save_images True""",
    "celebamv": f"""{MODEL} --diffusion_steps 500 --num_heads 4 --channel_mult 1,2,3,4
        --attention_resolutions 16,8,4 --image_size 32
        {ATTACK} --batch_size 3 --timestep_respacing 50 --sampling_time_fraction 0.1 --sampling_inpaint 0.15
        --dataset CelebAMV --data_dir DATA/celeba --model_path unet_celeba.pt --classifier_path dive.pth
        --label_query 39 --label_target 1""",
    "celebahq": f"""{MODEL} --diffusion_steps 500 --num_head_channels 32 --channel_mult 1,2,3,4
        {ATTACK} --attention_resolutions 16,8,4 --image_size 32 --batch_size 1 --timestep_respacing 25
        --sampling_time_fraction 0.2 --sampling_inpaint 0.15
        --attack_joint_checkpoint True --attack_checkpoint_backward_steps 1
        --dataset CelebAHQ --data_dir DATA/celebahq --model_path unet_celebahq.pt --classifier_path steex_hq.tar
        --label_query 31 --label_target -1""",
    "bdd100k": f"""{MODEL} --diffusion_steps 1000 --num_head_channels 32 --channel_mult 1,2,3,4
        {ATTACK} --attention_resolutions 2,1 --image_size 32 --batch_size 1 --timestep_respacing 100
        --sampling_time_fraction 0.05 --sampling_inpaint 0.05
        --dataset BDD100k --data_dir DATA/bdd100k --model_path unet_bdd.pt --classifier_path steex_bdd.tar
        --label_query 0 --label_target -1""",
    "bddoia": f"""{MODEL} --diffusion_steps 1000 --num_head_channels 32 --channel_mult 1,2,3,4
        {ATTACK} --attention_resolutions 2,1 --image_size 32 --batch_size 1 --timestep_respacing 100
        --sampling_time_fraction 0.05 --sampling_inpaint 0.05
        --dataset BDDOIA --data_dir DATA/bddoia --model_path unet_bdd.pt --classifier_path steex_bdd.tar
        --label_query 0 --label_target 0""",
    "imagenet": f"""{MODEL} --diffusion_steps 1000 --num_head_channels 32 --channel_mult 1,1,2,2,4,4
        {ATTACK} --attention_resolutions 4,2,1 --image_size 32 --batch_size 1 --timestep_respacing 25
        --sampling_time_fraction 0.2 --sampling_inpaint 0.15
        --dataset ImageNet --data_dir DATA/imagenet --model_path unet_imagenet.pt --classifier_path resnet50.pth
        --label_query 1 --label_target 2""",
}
PLAIN = f"{COMMANDS['celeba']} --use_fp16 no --attack_joint_checkpoint no"
WIDE = COMMANDS["bdd100k"].replace("--attention_resolutions 2,1 --image_size 32", "--attention_resolutions 16,8")
LEVELS = 5
"""That a stored pre-explanation, rounded to float16, may move a picture: --use_fp16 may be bfloat16, whose 2^-8 of the
range of [0, 1] is a level of 255, in each of the five steps of the refinement. Another noise moves pictures by tens."""
KINDS = ("pre-explanation", "explanation")


@pytest.fixture(autouse=True)
def restore_kernels(monkeypatch):
    """--cudnn_deterministic is for the whole process, which goes on here."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


@pytest.fixture
def type_command(golden_weights, tmp_path):
    """Function: a command, more flags -> the folder of its results."""

    def run(command: str, more: str = "", exp_name: str = "exp", program=main) -> Path:
        words = shlex.split(command.replace("DATA", str(DATA))) + shlex.split(more)
        for flag in ("--model_path", "--classifier_path"):
            place = words.index(flag) + 1
            words[place] = str(golden_weights(words[place]))
        assert program([*words, "--output_path", str(tmp_path), "--exp_name", exp_name]) == 0
        return tmp_path / "Results" / exp_name

    return run


def levels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in folder.glob("*/*/CF/*.png")}


def pictures(results: Path, kind: str) -> list[str]:
    return sorted(path.stem for path in results.glob(f"{kind}/*/*/CF/*.png"))


@pytest.mark.parametrize("dataset", COMMANDS)
def test_the_command_of_a_data_set_runs_unchanged(dataset, type_command):
    results = type_command(COMMANDS[dataset])
    assert len(pictures(results, "explanation")) == len(set(pictures(results, "pre-explanation"))) == 1
    assert yaml.safe_load((results / "summary.yaml").read_text())["n"] == 1


@pytest.mark.parametrize("dataset", ["celeba", "bdd100k"])
def test_postprocessing_takes_the_command_of_a_data_set_unchanged(dataset, type_command):
    results = type_command(COMMANDS[dataset], "--save_float True")
    type_command(COMMANDS[dataset], program=refine.main)
    (setting,) = results.glob("all_filtered_r-*")
    refined, run = levels(setting), levels(results / "explanation")
    assert len(refined) == len(run) == 1
    assert max(np.abs(refined[name] - run[name]).max() for name in run) <= LEVELS


@pytest.mark.slow
def test_the_command_of_bdd_runs_on_pictures_of_256_x_512(type_command):
    results = type_command(WIDE)
    assert len(pictures(results, "explanation")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        "--attack_method CW --attack_joint False",
        "--attack_method 'C&W' --label_target 1",
        "--attack_method GD --attack_step 100.0 --dist_schedule step --attack_iterations 2",
        "--attack_method None",
        "--attack_joint_shortcut True",
        "--attack_joint_checkpoint True --attack_checkpoint_backward_steps 2 --dist_l2 0.1 --dist_schedule linear",
        "--attack_joint f --sampling_stochastic 0 --class_cond n",
        "--timestep_respacing ddim25 --clip_denoised True --sampling_inpaint 0",
        "--cudnn_deterministic True --use_checkpoint True",
    ],
)
def test_the_options_of_the_original_run(more, type_command):
    results = type_command(PLAIN, more)
    assert len(pictures(results, "explanation")) == 1


# docs/original.md, section 4.
DEFAULTS = """--batch_size 16 --gpu 0 --save_images True --num_samples 500000000000 --cudnn_deterministic False
    --clip_denoised True --model_path '' --classifier_path '' --output_path results --exp_name exp --seed 4
    --attack_method PGD --attack_iterations 50 --attack_epsilon 255 --attack_step 1.0 --attack_joint True
    --attack_joint_checkpoint False --attack_checkpoint_backward_steps 1 --attack_joint_shortcut False
    --dist_l1 0.0 --dist_l2 0.0 --dist_schedule none --sampling_time_fraction 0.1 --sampling_stochastic True
    --sampling_inpaint 0.15 --sampling_dilation 15 --label_query -1 --label_target -1 --image_size 256
    --data_dir '' --dataset ImageNet --chunks 1 --chunk 0 --merge_chunks False --num_channels 128
    --num_res_blocks 2 --num_heads 4 --num_heads_upsample -1 --num_head_channels -1 --attention_resolutions 16,8
    --channel_mult '' --dropout 0.0 --class_cond False --use_checkpoint False --use_scale_shift_norm True
    --resblock_updown False --use_fp16 False --use_new_attention_order False --learn_sigma False
    --diffusion_steps 1000 --noise_schedule linear --timestep_respacing '' --use_kl False --predict_xstart False
    --rescale_timesteps False --rescale_learned_sigmas False"""


def test_every_flag_of_the_original_is_known_with_its_default():
    assert to_dict(parse(MainConfig, "", shlex.split(DEFAULTS))) == to_dict(parse(MainConfig, "", []))
    assert DEFAULTS.count("--") == 56


@pytest.mark.parametrize(("spellings", "value"), [("yes true t y 1 True", True), ("no false f n 0 False", False)])
def test_booleans_take_every_spelling_of_the_original(spellings, value):
    for spelling in spellings.split():
        assert to_dict(parse(MainConfig, "", ["--attack_joint", spelling]))["attack_joint"] is value
