"""Verdicts of unseen classifiers, photograph by photograph, and networks of one channel that are shown three."""

import pytest
import torch

from ace_counterfactuals.core.evaluation.metrics.transfer import Verdicts
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.classifiers import Classifier
from ace_counterfactuals.models.denoisers import DiffusionModel
from ace_counterfactuals.models.small import small
from benchmarks import verdicts
from benchmarks.colour import ThreeChannels, of_three_channels


def test_a_letter_tells_what_a_classifier_says_of_a_photograph():
    alike = torch.tensor([True, True, True, False])
    counted, reached = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, True])
    assert verdicts.letters(alike, Verdicts(counted, reached, torch.zeros(4))) == "yn.?"


def test_all_verdicts_on_a_photograph_are_counted_together():
    assert verdicts.counts(["yn.?", "yy.n"], "yn").tolist() == [[2, 2], [1, 2], [0, 0], [0, 1]]
    assert verdicts.counts(["yn.?", "yy.n"], "yn.").tolist() == [[2, 2], [1, 2], [0, 2], [0, 1]]


def test_the_judges_of_before_are_not_among_those_that_are_compared():
    assert verdicts.of([{"said earlier a": "y", "said a": "n", "n": "1"}, {"said a": "?"}]) == ["n", "?"]


def test_a_difference_beyond_chance_has_an_interval_that_leaves_out_0():
    better, worse = ["y" * 40 + "n" * 10], ["y" * 20 + "n" * 30]
    found, low, high = verdicts.difference(better, worse, "yn")
    assert found == pytest.approx(0.4) and 0 < low < 0.4 < high
    assert verdicts.difference(better, better, "yn") == (0, 0, 0)


def test_photographs_that_were_not_flipped_count_only_over_all_of_them():
    half, all_of_them = ["y" * 20 + "." * 20], ["y" * 40]
    assert verdicts.difference(all_of_them, half, "yn")[0] == 0
    assert verdicts.difference(all_of_them, half, "yn.")[0] == pytest.approx(0.5)


def test_each_of_three_channels_is_denoised_as_a_picture_of_its_own():
    process = GaussianDiffusion(DiffusionConfig(diffusion_steps=100))
    model = DiffusionModel(lambda x, t, _: torch.cat([x * t.view(-1, 1, 1, 1), x + 1], 1), process, channels=1)
    x, steps = torch.rand(2, 3, 4, 4), torch.tensor([2.0, 5.0])
    assert torch.equal(ThreeChannels(model)(x, steps), torch.cat([x * steps.view(-1, 1, 1, 1), x + 1], 1))


def test_a_classifier_of_one_channel_sees_the_mean_of_three():
    torch.manual_seed(0)
    own = Classifier(small(4, 2, in_channels=1), ((0.3,), (0.4,)), num_outputs=2).eval()
    colour = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(of_three_channels(own)(colour), own(colour.mean(1, keepdim=True)))
