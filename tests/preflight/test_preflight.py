"""--check True reports each fault where there is one, none where there is none, in time, and writes nothing."""

import json
import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ace_counterfactuals.core import preflight as module
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.preflight import bytes_each, preflight
from ace_counterfactuals.core.preflight.report import Report
from ace_counterfactuals.core.runs import plan
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import open_images
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.denoisers import DiffusionModel
from tests.support.paths import GOLDEN
from tests.support.toys import Workshop, exit_code, make_diffusion, tree

COLOURS = ("red", "green", "blue")
SIDE, STEPS = 8, 200


class Colour(nn.Module):
    """Right on every picture of one colour that is named after its strongest channel."""

    binary, class_names, num_outputs, image_size = False, COLOURS, 3, SIDE

    def __init__(self, order=(0, 1, 2)):
        super().__init__()
        self.order = list(order)

    def forward(self, image):
        return 10 * image.mean((2, 3))[:, self.order]


class Perfect(nn.Module):
    """The noise in a noisy picture of one colour, known up to the mean of the noise; from ``limit`` on nothing."""

    def __init__(self, limit=STEPS):
        super().__init__()
        self.limit, self.calls = limit, 0
        self.alphas_cumprod = make_diffusion(diffusion_steps=STEPS).alphas_cumprod.values.float()

    def forward(self, x_t, timesteps, y=None):
        self.calls += 1
        noise = (1 - self.alphas_cumprod[timesteps]).view(-1, 1, 1, 1).sqrt()
        eps = (x_t - x_t.mean((2, 3), keepdim=True)) / noise
        return torch.where(timesteps.view(-1, 1, 1, 1) < self.limit, eps, torch.zeros_like(eps))


class Scene:
    """A folder of 36 pictures of one colour each, and networks that are handed out instead of files."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.data = folder, folder / "pictures"
        self.classifier, self.denoiser = Colour(), Perfect()
        rng = np.random.default_rng(0)
        for i in range(36):
            colour = rng.integers(0, 100, 3)
            colour[i % 3] = rng.integers(150, 256)
            self.write(f"{COLOURS[i % 3]}/{i:02d}.png", np.broadcast_to(colour, (SIDE, SIDE, 3)))
        monkeypatch.setattr(module, "load_explained", lambda config, query, device: self.classifier)
        monkeypatch.setattr(module, "load_denoiser", self.load)

    def load(self, config, device):
        return DiffusionModel(self.denoiser, GaussianDiffusion(config.diffusion))

    def write(self, name: str, levels) -> None:
        (self.data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(levels, dtype=np.uint8)).save(self.data / name)

    def config(self, **changes) -> MainConfig:
        flags = {
            "dataset": "Folder",
            "data_dir": self.data,
            "image_size": SIDE,
            "output_path": self.folder / "out",
            "device": "cpu",
            "num_workers": 0,
            "batch_size": 2,
            "attack_iterations": 5,
            "diffusion_steps": STEPS,
            "timestep_respacing": 20,
            "sampling_time_fraction": 0.4,
            "sampling_dilation": 3,
            "label_query": "red",
            "label_target": "blue",
            **changes,
        }
        return parse(MainConfig, "", [part for name, value in flags.items() for part in (f"--{name}", str(value))])

    def check(self, seconds: float = 300.0, **changes) -> Report:
        return preflight(self.config(**changes), seconds)

    def problem(self, **changes) -> str:
        """The only one."""
        (problem,) = self.check(**changes).problems
        return problem


@pytest.fixture
def scene(tmp_path, monkeypatch):
    return Scene(tmp_path, monkeypatch)


def test_a_sound_set_up_has_no_problems_and_is_reported_in_full(scene):
    report = scene.check()
    assert report.problems == []
    text = report.render()
    assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == [
        "pictures", "classifier", "filter", "cost", "disk", "no",
    ]  # fmt: skip
    assert "12 of the 36" in text and "24 another label" in text
    assert "accuracy 100.0% on n = 36" in text
    assert "keeps 8 of 8 predictions" in text
    assert "5 x" in text and "measured on a batch of 2 on cpu" in text


def test_a_refinement_with_steps_of_its_own_is_reported(scene):
    text = scene.check(refine_timestep_respacing=10, refine_time_fraction=0.2).render()
    assert "8 of 20 steps, from step" in text and "in the refinement 2 of 10 steps, from step" in text


def test_pictures_are_counted_by_the_reason_that_leaves_them_out(scene):
    first, second = scene.check(num_samples=10, chunks=2, chunk=1).sections["pictures"]
    assert first.startswith("5 of the 36 of ") and first.endswith("03.png to 27.png")
    assert [int(word) for word in second.split() if word.isdecimal()][:2] == [24, 2]  # of 12 red ones, indices 24 to 35
    assert "5 in other chunks" in second


def test_an_empty_selection_is_a_problem_and_the_rest_is_still_measured(scene):
    report = scene.check(chunks=1000, chunk=999)
    assert report.problems[0].startswith("chunk 999 of 1000 is empty")
    assert report.sections["pictures"][0].startswith("0 of the 36")
    assert all(report.sections[title] for title in ("filter", "cost", "disk"))


def test_unreadable_pictures_are_counted_and_named(scene):
    (scene.data / "red" / "00.png").write_bytes(b"")
    assert "1 of the first pictures are unreadable" in (problem := scene.problem()) and "00.png" in problem


def test_another_size_than_the_classifier_was_trained_on_is_a_problem(scene):
    scene.classifier.image_size = 16
    assert "image_size 8" in (problem := scene.problem()) and "16 pixels" in problem


def test_a_classifier_that_guesses_is_near_chance(scene):
    class Guess(Colour):
        def forward(self, image):
            digit = (255 * image.sum((1, 2, 3)) / 64).round().long() % 3
            return 10 * nn.functional.one_hot(digit, 3).float() + 0.1 * image.mean((2, 3))

    scene.classifier = Guess()
    problems = scene.check().problems
    assert any(line.startswith("balanced accuracy near chance: ") and " of 36 pictures" in line for line in problems)


def test_a_classifier_whose_answers_have_no_gradient_is_a_problem(scene):
    class Rounding(Colour):
        def forward(self, image):
            return super().forward(image).round()

    scene.classifier = Rounding()
    assert any("its answers have no gradient" in problem for problem in scene.check().problems)


def test_flags_that_do_not_fit_the_network_are_a_problem_and_the_rest_is_still_measured(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    assert workshop.run(check=True, num_channels=64) == 1
    printed = capsys.readouterr().out
    assert "num_channels 64, but" in printed and "give num_channels 32" in printed
    assert "accuracy" in printed and "will be written" in printed and "filter      not measured" in printed


def test_a_missing_classifier_is_a_problem_and_the_pictures_are_still_counted(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    assert workshop.run(check=True, classifier_path=tmp_path / "none.pt") == 1
    printed = capsys.readouterr().out
    assert "6 of the 6" in printed and "none.pt" in printed and "classifier  not measured" in printed


def test_the_target_that_is_the_source_is_a_problem(scene):
    assert any("label_query itself" in problem for problem in scene.check(label_target="red").problems)


def test_pictures_that_are_predicted_as_their_target_already_are_a_problem(scene):
    scene.data = scene.folder / "pictures" / "blue"
    assert "are predicted as their target already" in scene.problem(label_query=-1)


def test_a_network_that_does_not_denoise_is_a_problem(scene):
    scene.denoiser = Perfect(limit=0)
    assert "does not denoise these pictures" in (problem := scene.problem()) and "model_path" in problem


def test_grey_pictures_are_tried_on_a_model_of_colour_ones(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    for file in workshop.data.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    workshop.run(check=True)
    printed = capsys.readouterr().out
    assert "noise prediction error" in printed and "(l1)" in printed


def test_steps_that_it_was_not_trained_on_are_a_problem(scene):
    problem = scene.problem(diffusion_steps=STEPS // 2)
    assert "may be of other flags" in problem and "check diffusion_steps 100" in problem


def test_a_warm_start_only_network_is_a_problem_from_pure_noise_alone(scene):
    scene.denoiser = Perfect(limit=100)
    assert scene.check(sampling_time_fraction=0.4).problems == []
    problems = scene.check(sampling_time_fraction=1.0).problems
    assert "at step 199" in problems[0] and "warm start only" in problems[0]


def test_a_network_that_predicts_the_picture_is_judged_by_its_noise(scene):
    perfect = Perfect()

    class Xstart(nn.Module):
        def forward(self, x_t, timesteps, y=None):
            signal = perfect.alphas_cumprod[timesteps].view(-1, 1, 1, 1).sqrt()
            return (x_t.mean((2, 3), keepdim=True) / signal).expand_as(x_t)

    scene.denoiser = Xstart()
    assert scene.check(predict_xstart=True).problems == []


def test_a_classifier_that_returns_nan_is_a_problem(scene):
    class Broken(Colour):
        def forward(self, image):
            return super().forward(image) * math.nan

    scene.classifier = Broken()
    assert any("NaN or infinity in the classifier's output" in line for line in scene.check().problems)


def test_an_overflow_of_half_precision_is_a_problem(scene):
    scene.denoiser = lambda x_t, timesteps, y=None: x_t.half() * 60000
    assert "half precision overflows: give use_fp16 False" in scene.problem(use_fp16=True)


def test_a_filter_that_changes_predictions_is_a_problem(scene):
    class Grey(Perfect):
        """Whatever it sees, it sees a green picture."""

        def forward(self, x_t, timesteps, y=None):
            signal, noise = (a.view(-1, 1, 1, 1).sqrt() for a in self.parts(timesteps))
            return (x_t - signal * torch.tensor([-1.0, 1.0, -1.0]).view(1, 3, 1, 1)) / noise

        def parts(self, timesteps):
            return self.alphas_cumprod[timesteps], 1 - self.alphas_cumprod[timesteps]

    scene.denoiser = Grey()
    assert any("the filter alone changes the prediction of 8 of 8" in line for line in scene.check().problems)


def test_a_batch_that_does_not_fit_is_a_problem(scene):
    class Greedy(Perfect):
        def forward(self, x_t, timesteps, y=None):
            if len(x_t) == 2 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("no memory")
            return super().forward(x_t, timesteps, y)

    scene.denoiser = Greedy()
    problem = scene.problem(attack_joint_checkpoint=True)
    assert problem == "2 pictures at once do not fit into memory; give a smaller batch_size"


def rows(report):
    """The plan's, by column."""
    start = next(i for i, line in enumerate(report.sections["cost"]) if line.startswith("at once"))
    return [re.split(r"  +", line) for line in report.sections["cost"][start + 1 :]]


def test_the_plan_tells_memory_calls_and_time_of_the_choices_around_the_chosen(scene):
    found = rows(scene.check(attack_joint_checkpoint=True, attack_checkpoint_backward_steps=4, batch_size=4))
    assert [row[:2] for row in found] == [
        ["4", "checkpointed, 4 at a time, as set"],
        ["2", "checkpointed, 4 at a time"],
        ["8", "checkpointed, 4 at a time"],
        ["4", "chain of 8"],
        ["4", "checkpointed, 1 at a time"],
        ["4", "checkpointed, 2 at a time"],
        ["4", "one step"],
    ]
    calls = [row[3] for row in found]  # of 5 iterations through 8 steps, and of 8 steps of the refinement
    assert calls == ["68 + 40 back"] * 3 + ["48 + 40 back", "83 + 40 back", "78 + 40 back", "13 + 5 back"]


def test_what_auto_would_be_is_planned(scene):
    assert rows(scene.check(batch_size="auto"))[0][:2] == ["12", "chain of 8, as set"]


def test_auto_where_not_even_one_picture_fits_is_a_problem(scene, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: 0)
    assert "batch_size auto: not even one picture fits" in scene.problem(batch_size="auto")


def test_a_full_disk_is_a_problem(scene, monkeypatch):
    usage = SimpleNamespace(f_frsize=1000, f_bavail=1)
    monkeypatch.setattr(module.os, "statvfs", lambda folder: usage)
    assert "will be written, but only 1000 B are free" in scene.problem()


@pytest.mark.parametrize("save_float", [False, True])
def test_what_will_be_written_is_about_what_is_written(tmp_path, save_float):
    workshop = Workshop(tmp_path)
    config = parse(MainConfig, "", workshop.arguments(save_float=save_float))
    estimate = bytes_each(open_images(config)[0], config, 4096)
    workshop.run(num_samples=1, save_float=save_float)
    files = [path for path in workshop.output.rglob("*0000000*") if path.is_file()]
    written = sum(math.ceil(path.stat().st_size / 4096) * 4096 for path in files)
    assert estimate == pytest.approx(written, rel=0.3)
    assert len(files) == 10 + save_float


def test_finished_pictures_and_other_settings_are_recognised(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.run(num_samples=2)
    report = preflight(parse(MainConfig, "", workshop.arguments()))
    assert report.sections["pictures"][-1].startswith("2 are finished already")
    assert "for the 4 pictures left" in report.render()
    assert not any("other settings" in line for line in report.problems)
    report = preflight(parse(MainConfig, "", workshop.arguments(attack_iterations=3)))
    assert any("attack_iterations 3 (there: 1)" in line for line in report.problems)


def test_nothing_is_written(scene, tmp_path):
    before = tree(tmp_path)
    scene.check()
    assert tree(tmp_path) == before and not (tmp_path / "out").exists()


class Slow(Perfect):
    def forward(self, x_t, timesteps, y=None):
        time.sleep(0.2)
        return super().forward(x_t, timesteps, y)


def test_what_would_take_too_long_is_estimated_instead(scene):
    scene.denoiser = Slow()
    started = time.monotonic()
    report = scene.check(seconds=1.0)
    assert time.monotonic() - started < 10  # all of it would sleep for more than 20
    seconds = float(report.sections["cost"][0].split(" x ")[1].split(" s ")[0])
    assert 3 * 8 * 0.19 < seconds < 2 * 3 * 8 * 0.2  # three calls, one of them backward, for each of eight steps
    assert "estimated from single calls" in report.render() and "takes too long here" in report.render()
    assert report.problems == []


def test_a_run_in_one_step_is_estimated_by_one_call_forward_and_back_for_each_iteration(scene):
    scene.denoiser = Slow()
    line = scene.check(seconds=1.0, attack_filter="one-step").sections["cost"][0]
    assert 3 * 0.19 < float(line.split(" x ")[1].split(" ms ")[0]) / 1000 < 2 * 3 * 0.2


def test_a_slow_classifier_is_tried_on_fewer_pictures(scene):
    class Slow(Colour):
        def forward(self, image):
            time.sleep(0.1)
            return super().forward(image)

    scene.classifier = Slow()
    tried = scene.check(seconds=0.5).sections["classifier"][0]
    assert "n = 36" not in tried and "n = " in tried


@pytest.mark.parametrize(
    "changes",
    [{"attack_method": "None"}, {"attack_joint": False}, {"sampling_time_fraction": 0}, {"attack_joint_shortcut": True},
     {"sampling_stochastic": False}, {"save_images": False}, {"attack_joint_checkpoint": True},
     {"label_target": -1}, {"attack_filter": "one-step"}, {"attack_stop_confidence": 0.9}],
)  # fmt: skip
def test_every_kind_of_run_can_be_checked(scene, changes):
    report = scene.check(**changes)
    assert report.problems == []
    assert report.render()


def test_contradicting_flags_and_missing_data_are_errors_of_one_line(scene, capsys):
    def flags(**changes):
        return [part for name, value in changes.items() for part in (f"--{name}", str(value))]

    for changes in ({"chunk": 3}, {"data_dir": "none"}, {"data_dir": scene.data, "merge_chunks": True}):
        assert exit_code(lambda changes=changes: main(flags(dataset="Folder", check=True, **changes))) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_recorded_case_is_checked_through_main(golden_weights, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(GOLDEN)
    flags = json.loads((GOLDEN / "cases.json").read_text())["celeba_joint_det"]
    names = {"weights/unet_celeba.pt": "unet_celeba.pt", "weights/dive.pth": "dive.pth"}
    flags = [str(golden_weights(names[flag])) if flag in names else flag for flag in flags]
    assert main([*flags, "--device", "cpu", "--output_path", str(tmp_path / "out"), "--check", "True"]) == 1
    printed = capsys.readouterr().out
    assert "4 of the 12 of dataset CelebA" in printed and "8 beyond num_samples 4" in printed
    assert "000201.jpg to 000204.jpg" in printed
    assert "the diffusion model does not denoise these pictures" in printed  # its weights are random
    assert not (tmp_path / "out").exists()
