"""The original's loop, with which the benchmarks compare: the same gradient by another way, but for its defect."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ace_counterfactuals.core.method import attacking, gradients
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.noise import image_noise
from ace_counterfactuals.core.method.task import judge
from benchmarks import original
from tests.support.toys import (
    ToyClassifier,
    ToyDenoiser,
    pictures,
    relative_distance,
    toy_diffusion,
    toy_task,
    toy_unet,
)

SAME = 1e-12  # of float64: its eps, 2e-16, of each of some thousand sums that other orders round otherwise
NOISE = image_noise(4, [0, 1], 0)


def objective(image):
    target = torch.ones(len(image), dtype=torch.int64)
    return F.cross_entropy(ToyClassifier(dtype=torch.float64)(image), target, reduction="sum")


def filters(steps, respacing="20", **changes):
    """Ours, and with the original's network."""
    unet = toy_unet(torch.float64, **changes)
    diffusion = toy_diffusion(respacing, learn_sigma=changes.get("learn_sigma", True))
    return [Filter(diffusion, network, steps) for network in (unet, original.OriginalUNet(unet))]


def image():
    """Away from black and white."""
    return 0.2 + 0.6 * pictures(2, torch.float64)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resblock_updown": False, "learn_sigma": False},
        {"use_scale_shift_norm": False, "num_res_blocks": 2},
        {"use_new_attention_order": True, "num_heads_upsample": 2},
    ],
    ids=lambda changes: ", ".join(changes) or "as it is",
)
def test_the_originals_network_with_its_whole_graph_gives_our_gradient(changes):
    ours, theirs = filters(3, **changes)
    found = original.chain_gradient(objective, theirs, image(), NOISE)
    assert relative_distance(found, gradients.chain_gradient(objective, ours, image(), NOISE)) < SAME


@pytest.mark.parametrize(("steps", "segment"), [(3, 3), (4, 2), (5, 4)])
def test_of_one_or_two_segments_so_does_its_checkpointing(steps, segment):
    ours, theirs = filters(steps)
    found = original.checkpointed_gradient(objective, theirs, image(), NOISE, segment=segment)
    assert relative_distance(found, gradients.chain_gradient(objective, ours, image(), NOISE)) < SAME


def test_of_more_it_gives_another_and_calls_the_network_as_often_as_documented():
    network, calls = ToyDenoiser(torch.float64), []

    def counted(*inputs):
        calls.append(torch.is_grad_enabled())
        return network(*inputs)

    inputs = objective, Filter(toy_diffusion("40"), counted, 20), image(), NOISE
    found = original.checkpointed_gradient(*inputs, segment=1)
    assert (calls.count(False), calls.count(True)) == (210, 20)
    right = gradients.checkpointed_gradient(*inputs, segment=1)
    assert F.cosine_similarity(found.flatten(1), right.flatten(1)).max() < 0.9


@pytest.mark.parametrize("settings", [{}, {"attack_joint_shortcut": True}, {"attack_joint_checkpoint": True}])
def test_an_attack_by_the_original_finds_what_ours_does(settings):
    unet, classifier = toy_unet(torch.float64), ToyClassifier(dtype=torch.float64)
    sampling = {"sampling_time_fraction": 0.2, "dist_l1": 0.01, "dist_schedule": "linear"}
    task = toy_task(torch.float64, classifier=classifier, **sampling, **settings)
    found = []
    for network, attack in ((unet, attacking.attack), (original.OriginalUNet(unet), original.attack)):
        batch = judge(image(), replace(task, denoiser=network)).aimed_at(torch.tensor([0, 2]))
        found.append(attack(batch, lambda state: found.append(state.iteration))[0])
    assert found[:2] == [1, 2] == found[3:5] and relative_distance(found[5], found[2]) < SAME
    assert not torch.equal(found[2], image())
