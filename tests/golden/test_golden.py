"""The original's recorded runs come out again, compared in the order of what discriminates.

What was recorded is float32, whose eps is 1.2e-7. A network of random weights sits on the kinks of ReLU and max-pool:
where a rounding crosses one, entries of the gradient jump, and an attack takes signs, so that a pixel then moves by
whole steps. Compared are therefore shares of pixels, and norms.
"""

import contextlib
import functools
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ace_counterfactuals.core.base.settings import to_dict
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.imageset import open_dataset, select
from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.filtering import inpaint
from ace_counterfactuals.core.method.noise import no_noise
from ace_counterfactuals.core.method.objectives import distance_gradient, distance_weight
from ace_counterfactuals.core.method.task import Task, judge
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import diffusion_of
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.loading import load_weights, state_dict
from tests.support.paths import GOLDEN, SHARED
from tests.support.toys import iterated

FLAGS = json.loads((GOLDEN / "cases.json").read_text())
CELEBA = [name for name in FLAGS if "celeba_" in name]
FACES = [*CELEBA, "celebahq_joint_det"]
ATTACKED = [name for name in FACES if name != "celeba_none"]
DISTINCT = [name for name in ATTACKED if not name.startswith("inpaint") and name != "celeba_joint_l1l2"]
"""Cases whose first gradient is not, to the bit, celeba_joint_det's."""

AGAIN = ("celeba_ckpt1_det_FIXED", "celeba_joint_target1")
"""Of these others differ in the length of the segments, or in the target, alone: they are in the slow tests."""

ONCE_EACH = ("celeba_ckpt2_det_FIXED", "celeba_plain_cw", "inpaint_celeba_gd_det")
"""Cases of which each has another attack or gradient; main attacks one more, the others are in the slow tests."""

KINKS = 3e-3
"""Relative, in L2: one entry of a gradient in a hundred may jump by 3 % of its size, 0.03 x sqrt(0.01)."""


class Case:
    """One recorded run: its flags, its networks, which it shares with others of the same files, and what it gave."""

    loaded: ClassVar[dict] = {}

    def __init__(self, name: str, golden_weights):
        self.folder = next((p / "cases" / name for p in (GOLDEN, SHARED) if (p / "cases" / name).exists()), None)
        if self.folder is None:
            pytest.skip(f"the recorded case {name} is too large for this repository and not beside it")
        arguments = [*FLAGS[name], "--device", "cpu"]
        if name.startswith("imagenet"):
            arguments += ["--classifier_path", "weights/resnet50.pth"]
        self.config = parse(MainConfig, "", arguments)
        self.model_path = golden_weights(Path(self.config.weights.model_path).name)
        self.classifier_path = golden_weights(Path(self.config.weights.classifier_path).name)
        self.diffusion = diffusion_of(self.config)
        self.info = json.loads((self.folder / "info.json").read_text())

    def recorded(self, name: str, place: int = 0) -> torch.Tensor:
        array = torch.from_numpy(np.load(self.folder / f"{name}.npy")[place : place + 1])
        return array.float() / 255 if name == "x" else array

    def networks(self, dtype=torch.float32):
        data, files = self.config.data, (self.model_path, self.classifier_path, dtype)
        if files not in self.loaded:
            query = data.label_query if data.dataset != "ImageNet" else None
            classifier = load_classifier(self.classifier_path, query=query, **spec_of(data.dataset).classifier())
            denoiser = build_unet(to_dict(self.config), state_dict(load_weights(self.model_path)))
            self.loaded[files] = classifier.to(dtype), denoiser.to(dtype)
        return self.loaded[files]

    def label(self, place: int) -> torch.Tensor:
        data = self.config.data
        images = open_dataset(
            data.dataset, GOLDEN / data.data_dir, image_size=data.image_size, label_query=data.label_query
        )
        chosen = select(images, label_target=data.label_target, label_query=data.label_query)
        return torch.tensor([chosen.records[place].label])

    def setting(self, place: int = 0, dtype=torch.float32, **changes):
        """(batch, gradient function or None) of one picture; ``changes`` are of the attack's settings."""
        classifier, denoiser = self.networks(dtype)
        task = Task(
            classifier=classifier,
            denoiser=denoiser,
            diffusion=self.diffusion,
            attack=replace(self.config.attack, **changes),
            sampling=replace(self.config.sampling, sampling_stochastic=False),
            label_target=self.config.data.label_target,
        )
        batch = judge(self.recorded("x", place).to(dtype), task, [place]).aimed(self.label(place))
        assert batch.target.item() == self.info["targets"][place]
        entry = ATTACKS[task.attack.attack_method]
        return batch, entry and make_grad_fn(batch, entry)


@pytest.fixture(scope="module")
def case(golden_weights):
    return functools.cache(lambda name: Case(name, golden_weights))


def relative_distance(a, b):
    return ((a - b).flatten(1).double().norm(dim=1) / b.flatten(1).double().norm(dim=1)).max().item()


def share_within(a, b, tolerance):
    return ((a - b).abs() <= tolerance).double().mean().item()


@pytest.mark.parametrize("name", [*FACES, pytest.param("imagenet_joint_det", marks=pytest.mark.slow)])
def test_refining_the_recorded_pre_explanation_gives_the_recorded_counterfactual(case, name):
    recorded = case(name)
    batch, _ = recorded.setting()
    pre_explanation = recorded.recorded("pe")
    found = inpaint(batch.refiner, batch.image, pre_explanation, no_noise, batch.task.sampling).counterfactual
    # Without gradients a rounding grows some 100-fold in the filter's steps; the mask's edge may move by single pixels.
    assert share_within(found, recorded.recorded("ce"), 1e-4) >= 0.999


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in AGAIN else n for n in DISTINCT])
def test_the_first_gradient_in_double_precision_is_the_recorded_one(case, name):
    """C&W's first picture has a tie in a max-pool, which single precision breaks otherwise: its second one is taken."""
    recorded, place = case(name), int(name == "celeba_plain_cw")
    batch, grad_fn = recorded.setting(place, torch.float64, dist_l1=0.0, dist_l2=0.0)
    assert relative_distance(grad_fn(starting_point(batch), 0), recorded.recorded("grad", place)) < KINKS


@pytest.mark.parametrize("name", [n if n in ONCE_EACH else pytest.param(n, marks=pytest.mark.slow) for n in ATTACKED])
def test_the_attack_takes_the_recorded_gradient_to_the_recorded_pre_explanation(case, name):
    recorded = case(name)
    batch, grad_fn = recorded.setting()
    image, attack = batch.image, batch.task.attack
    lost = attack.attack_method == "C&W"  # the original drops its last update
    gradients = []

    def watched(adversary, iteration):
        gradients.append(grad_fn(adversary, iteration))
        return gradients[-1]

    fewer = replace(attack, attack_iterations=attack.attack_iterations - lost)
    found = iterated(ATTACKS[attack.attack_method], watched, image, fewer)
    weights = {"dist_l1": attack.dist_l1, "dist_l2": attack.dist_l2}
    distance = distance_gradient(image, starting_point(batch), **weights)
    distance = distance * distance_weight(attack.dist_schedule, 0, attack.attack_iterations)
    assert relative_distance(gradients[0] - distance, recorded.recorded("grad")) < 5e-3  # KINKS, of either
    expected = recorded.recorded("pe")
    if attack.attack_method == "GD":  # its gradients are amplified 100-fold: after three steps only the size is left
        assert (found - image).norm() == pytest.approx((expected - image).norm(), rel=0.5)
    else:
        # The pixels whose gradient is less than the kinks move it by may take another sign at each of the iterations.
        assert share_within(found, expected, 1e-5) >= 0.93


def test_without_an_attack_the_pre_explanation_is_the_picture(case):
    recorded = case("celeba_none")
    batch, _ = recorded.setting()
    assert torch.equal(recorded.recorded("pe"), batch.image)


def starting_point(batch):
    """Where the first gradient is taken: C&W's change of variable does not give quite the picture back."""
    attack = ATTACKS[batch.task.attack.attack_method]
    return attack.decode(attack.encode(batch.image))


@pytest.fixture(scope="module")
def run_of_main(golden_weights, tmp_path_factory):
    """(output folder, standard output) of main.py with the flags of celeba_joint_det."""
    output = tmp_path_factory.mktemp("golden_run")
    files = {"data/celeba": GOLDEN / "data/celeba"}
    files |= {f"weights/{name}": golden_weights(name) for name in ("unet_celeba.pt", "dive.pth")}
    arguments = [str(files.get(argument, argument)) for argument in FLAGS["celeba_joint_det"]]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*arguments, "--device", "cpu", "--output_path", str(output), "--exp_name", "exp"]) == 0
    return output, printed.getvalue()


LAYOUT = json.loads((GOLDEN / "layout.json").read_text())["files"]
INFOS = [file for file, text in LAYOUT.items() if text and file.endswith(".txt")]


def test_main_writes_every_file_that_the_original_wrote(run_of_main):
    output, _ = run_of_main
    assert [file for file in LAYOUT if not (output / file).is_file()] == []


def test_main_writes_pictures_under_no_further_name(run_of_main):
    output, _ = run_of_main
    folders = ("Original", "Results/exp/explanation", "Results/exp/pre-explanation")
    found = {path.relative_to(output).as_posix() for f in folders for path in (output / f).rglob("*") if path.is_file()}
    assert found == set(LAYOUT) - {"Results/exp/summary.yaml"}


CHANGES = {"l_1": 1e-3, "l_inf": 3.5 / 255}  # one value decides the second, which rounding moves by some of its levels


@pytest.mark.parametrize("file", INFOS)
def test_an_info_file_has_the_labels_and_numbers_of_the_original(run_of_main, file):
    def parsed(text):
        return dict(line.split(": ") for line in text.splitlines())

    ours, theirs = parsed((run_of_main[0] / file).read_text()), parsed(LAYOUT[file])
    assert list(ours) == list(theirs)
    for name in theirs:
        if name in CHANGES:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=CHANGES[name])
        else:
            assert ours[name] == theirs[name]


def test_the_summary_has_the_keys_and_values_of_the_original(run_of_main):
    ours = yaml.safe_load((run_of_main[0] / "Results/exp/summary.yaml").read_text())
    theirs = yaml.safe_load(LAYOUT["Results/exp/summary.yaml"])
    for kind in ("explanation", "pre-explanation"):
        own, wanted = ours.pop(kind), theirs.pop(kind)
        assert own.pop("l inf") == pytest.approx(wanted.pop("l inf"), abs=CHANGES["l_inf"])
        assert own == pytest.approx(wanted, abs=1e-3)
    assert ours.pop("skipped") == 0
    assert ours == theirs


def test_the_originals_decode_to_the_recorded_pictures(run_of_main):
    recorded = np.load(GOLDEN / "cases/celeba_joint_det/x.npy")
    for file in (file for file in LAYOUT if file.startswith("Original")):
        with Image.open(run_of_main[0] / file) as picture:
            assert np.array_equal(np.asarray(picture), recorded[int(Path(file).stem)].transpose(1, 2, 0))


def test_the_stored_counterfactuals_are_the_recorded_ones(run_of_main):
    """Within one level in most values: the attack's signs, and truncation, move the others."""
    recorded = np.load(GOLDEN / "cases/celeba_joint_det/ce.npy")
    for file in (file for file in LAYOUT if "/explanation/" in file and "/CF/" in file):
        with Image.open(run_of_main[0] / file) as picture:
            found = np.asarray(picture).transpose(2, 0, 1) / 255
        assert np.abs(found - recorded[int(Path(file).stem)]).mean() < 2 / 255


def test_main_ends_with_a_table_and_where_to_look(run_of_main):
    lines = run_of_main[1].splitlines()
    assert lines[0].split() == ["n", "accuracy", "flip", "rate", "l1", "l_inf"]
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["pre-explanation", "4", "0.500"],
        ["explanation", "4", "0.500"],
    ]
    assert "sheet.png" in lines[3]
