"""Validity after denoising: by hand, picture by picture, and what there is without the run's networks."""

import csv

import numpy as np
import pytest
import torch

from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.data.pictures import decode, to_tensor
from ace_counterfactuals.core.evaluation.metrics.validity import DENOISED, still_flips
from ace_counterfactuals.core.evaluation.model import FLIPPED
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import image_noise
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import chain_of
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.experiment import open_experiment
from ace_counterfactuals.core.runs.setup import diffusion_of, load_networks
from ace_counterfactuals.models.classifiers import open_ours, save_classifier
from ace_counterfactuals.models.loading import load_weights
from tests.support.result_folders import evaluate, figures
from tests.support.toys import CLASSES, SIDE, Workshop, pictures

WANTED = ("--denoised-validity", "True")


def test_a_targeted_picture_has_to_keep_its_target_and_another_to_stay_away_from_its_class():
    decided = [(0, 1, 1), (0, 1, 1), (0, 1, -1), (0, 1, -1)]
    assert still_flips(np.array([1, 2, 2, 0]), decided).tolist() == [True, False, True, False]
    assert still_flips(np.zeros(0), []).shape == (0,)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Six pictures, sent to another class; the classifier sees different classes in them."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    with torch.no_grad():
        network = open_ours(load_weights(workshop.classifier), "")[0].eval()
        network.head.weight.normal_(std=100)
        network.head.bias.zero_().sub_(network((pictures(6) - 0.5) / 0.2).mean(0))
    half = {"mean": [0.5] * 3, "std": [0.2] * 3}
    save_classifier(workshop.classifier, network, arch="small-4", class_names=CLASSES, image_size=SIDE, **half)
    workshop.run(attack_iterations=10, sampling_inpaint=0.5)
    return workshop


def by_hand(workshop, seed: int) -> dict[str, bool]:
    """Each picture alone."""
    stored = open_experiment(workshop.output, "exp")
    config = from_dict(MainConfig, {**stored.flags, "device": "cpu"})
    classifier, denoiser = load_networks(config, -1, torch.device("cpu"))
    diffusion, steps = chain_of(config.sampling, diffusion_of(config))
    filter_, found = Filter(diffusion, denoiser, steps), {}
    for pair in (pair for pair in stored.pairs if pair.folder in FLIPPED.folders):
        record = stored.records[pair.name]
        noise = image_noise(seed, [record.index], DENOISED)
        with torch.no_grad():
            image = to_tensor(decode(pair.counterfactual))[None]
            seen = predict(classifier(filter_(image, noise))).item()
        found[pair.name] = seen == record.target if record.target >= 0 else seen != record.prediction
    return found


@pytest.mark.parametrize("batch_size", [1, 4])
def test_validity_is_the_share_that_flips_after_one_pass_of_each_alone(workshop, tmp_path, batch_size):
    where = ("--cache-path", tmp_path / "cache", "--evaluation-path", tmp_path / "place")
    evaluate("--output-path", workshop.output, *WANTED, *where, "--batch-size", batch_size, "--seed", 7)
    expected, figure = by_hand(workshop, 7), figures(tmp_path / "place")["denoised_validity"]
    assert figure["n"] == len(expected) > 0 and figure["value"] == pytest.approx(np.mean(list(expected.values())))
    assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1 and figure["interval"] == "Wilson"
    rows = list(csv.DictReader((tmp_path / "place/metrics.csv").read_text().splitlines()))
    kept = {row["name"]: row["denoised_validity"] == "1.0" for row in rows if row["denoised_validity"]}
    assert kept == expected


def test_without_being_asked_for_it_is_not_computed(workshop, tmp_path):
    evaluate("--output-path", workshop.output, "--evaluation-path", tmp_path)
    assert "denoised_validity" not in figures(tmp_path)
    assert "denoised_validity" not in (tmp_path / "metrics.csv").read_text()


def test_without_the_runs_diffusion_model_there_is_no_figure_and_it_is_said_why(workshop, tmp_path, notes, monkeypatch):
    aside = workshop.model.with_suffix(".aside")
    workshop.model.rename(aside)
    try:
        evaluate("--output-path", workshop.output, "--evaluation-path", tmp_path, *WANTED)
        assert "denoised_validity" not in figures(tmp_path) and "no D.Val, because the run's diffusion" in notes.text
        workshop.model.write_bytes(aside.read_bytes() + b"more")
        evaluate("--output-path", workshop.output, "--evaluation-path", tmp_path, *WANTED)
        assert "is not the file any more" in notes.text and "denoised_validity" not in figures(tmp_path)
    finally:
        aside.rename(workshop.model)
