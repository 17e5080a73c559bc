"""Deep features of the U-Net, kept over the steps of a chain (``--attack_deep_every``)."""

import pytest
import torch

from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.guided_diffusion.unet import Deep
from tests.support.toys import ToyClassifier, pictures, relative_distance, toy_diffusion, toy_task, toy_unet

STEPS = 5  # of the filter


def make_batch(every, network=None, count=3):
    network = network or toy_unet(torch.float64)
    settings = {"sampling_time_fraction": STEPS / 10, "attack_deep_every": every, "label_target": 1}
    networks = {"classifier": ToyClassifier(dtype=torch.float64), "denoiser": network, "diffusion": toy_diffusion()}
    return judge(pictures(count, torch.float64), toy_task(torch.float64, **networks, **settings)).aimed()


def gradient(batch):
    return make_grad_fn(batch, find_attack("PGD", targeted=True))(batch.image, 0)


@pytest.mark.parametrize(("every", "whole"), [(1, 5), (2, 3), (3, 2), (5, 1), (9, 1)])
def test_all_levels_are_computed_at_every_nth_step_of_the_chain_from_its_first_on(every, whole):
    network, calls = toy_unet(torch.float64), {"middle": 0, "all": 0}
    network.middle_block.register_forward_hook(lambda *_: calls.update(middle=calls["middle"] + 1))
    network.register_forward_hook(lambda *_: calls.update(all=calls["all"] + 1))
    batch = make_batch(every, network)
    batch.filter(batch.image, batch.noise(0))
    assert calls == {"middle": whole, "all": STEPS}


def test_features_of_the_same_step_change_nothing():
    network, x_t, t = toy_unet(torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([3, 40])
    deep = Deep()
    assert torch.equal(network(x_t, t, deep=deep), network(x_t, t)) and deep.features is not None
    torch.testing.assert_close(network(x_t, t, deep=deep), network(x_t, t))


def test_the_gradient_is_that_of_the_filter_which_is_taken():
    batch = make_batch(2, count=1)
    noise, direction = batch.noise(0), torch.randn(batch.image.shape, dtype=torch.float64)

    def loss(step):
        filtered = batch.filter(batch.image + step * direction, noise)
        return torch.nn.functional.cross_entropy(batch.task.classifier(filtered), batch.target).item()

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert (gradient(batch) * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_a_pictures_gradient_does_not_depend_on_the_others():
    batch = make_batch(3)
    together = gradient(batch)
    for i in range(3):
        torch.testing.assert_close(gradient(batch.take([i])), together[i : i + 1])


def test_the_gradient_moves_away_from_that_of_all_levels_the_less_they_are_computed():
    whole, near, far = (gradient(make_batch(every)) for every in (1, 2, 5))
    assert 0 < relative_distance(near, whole) < relative_distance(far, whole)


def test_the_refinement_computes_all_levels():
    assert make_batch(3).refiner.deep_every == 1
