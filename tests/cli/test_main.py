"""main.py as it is typed."""

import subprocess
import sys

import pytest
import torch

from ace_counterfactuals.core.base.runtime import half_precision
from ace_counterfactuals.core.base.settings import flag_items
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.paths import MAIN
from tests.support.toys import UNET, Workshop, exit_code, tree


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_help_is_printed_from_anywhere_without_weights_or_data(tmp_path):
    done = subprocess.run([sys.executable, str(MAIN), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in flag_items(MainConfig) if f"--{name} " not in done.stdout] == []


def test_help_of_the_running_program_ends_with_0(capsys):
    assert exit_code(lambda: main(["--help"])) == 0
    assert "attack: the pre-explanation" in capsys.readouterr().out


def test_standard_output_holds_the_results_and_standard_error_the_notes(workshop, capsys):
    workshop.run(num_samples=1)
    workshop.run(num_samples=2)
    printed = capsys.readouterr()
    assert "1 of 2 pictures are finished already" in printed.err
    assert "note" not in printed.out and "flip rate" in printed.out


def test_flags_may_come_from_a_preset(workshop):
    """Relative paths in it are its own."""
    lines = [f"{name}: {value}" for name, value in UNET.items() if value != ""]
    lines += [
        "dataset: Folder",
        "data_dir: pictures",
        "model_path: model.safetensors",
        "classifier_path: classifier.safetensors",
    ]
    lines += ["diffusion_steps: 100", "timestep_respacing: 10", "attack_iterations: 1", "num_samples: 1"]
    preset = workshop.folder / "mine.yaml"
    preset.write_text("\n".join(lines) + "\n")
    assert main(["--preset", str(preset), "--output_path", str(workshop.output), "--device", "cpu"]) == 0
    assert "Results/exp/summary.yaml" in tree(workshop.output)


def test_half_precision_on_a_cpu_that_has_it_is_bfloat16_with_a_notice(workshop, capsys, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert workshop.run(use_fp16=True, num_samples=1, use_checkpoint=True) == 0
    assert "note: use_fp16 True is bfloat16 on cpu" in capsys.readouterr().err


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_that_emulates_half_precision_is_said_to(capsys, monkeypatch, native, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    with caplog.at_level("INFO"):
        assert half_precision(torch.device("cpu")) == torch.bfloat16
    assert ("emulates" in caplog.text) is not native


def test_half_precision_on_another_cpu_is_full_precision_with_a_notice(workshop, capsys, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    workshop.run(use_fp16=True, num_samples=1, exp_name="half")
    assert "note: use_fp16 True is float32 here" in capsys.readouterr().err
    workshop.run(num_samples=1, exp_name="full")
    half, full = (tree(workshop.results(name) / "explanation") for name in ("half", "full"))
    assert half == full


UNTARGETED = [("PGD", False), ("GD", False), ("None", False)]
TARGETED = [("PGD", True), ("GD", True), ("C&W", True), ("CW", True), ("None", True)]


@pytest.mark.parametrize(("method", "targeted"), UNTARGETED + TARGETED)
def test_every_attack_runs_from_the_command_line(workshop, method, targeted):
    target = {"label_query": "boot", "label_target": "coat"} if targeted else {}
    assert workshop.run(attack_method=method, attack_iterations=1, num_samples=1, save_images=False, **target) == 0


@pytest.mark.parametrize("respacing", ["", "5,5", "ddim10"])
def test_every_kind_of_respacing_runs(workshop, respacing):
    settings = {"diffusion_steps": 30, "attack_iterations": 1, "num_samples": 1, "save_images": False}
    assert workshop.run(timestep_respacing=respacing, sampling_time_fraction=0.1, **settings) == 0


def test_a_local_rank_leaves_a_cpu_run_alone(workshop, monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert workshop.run(num_samples=1, save_images=False, attack_iterations=1) == 0
