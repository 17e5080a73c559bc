"""The loop of the attack is lean: the host hands work to the device, and waits for none of it."""

from contextlib import suppress

import pytest
import torch

from ace_counterfactuals.core.method.attacking import attacked
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import judge
from tests.support.toys import SIDE, ToyClassifier, ToyDenoiser, toy_task, toy_unet
from tests.support.waits import Waits

ITERATIONS = 3
WAYS = {
    "chain": {},
    "one step": {"attack_filter": "one-step"},
    "checkpointed": {"attack_joint_checkpoint": True},
    "shortcut": {"attack_joint_shortcut": True},
    "no filter": {"attack_joint": False},
    "without noise": {"sampling_stochastic": False},
    "with distances": {"dist_l1": 1.0, "dist_l2": 1.0, "dist_schedule": "linear"},
}


def colour(image):
    return image.expand(-1, 3, -1, -1)


def waits_of_each_iteration(
    channels: int = 3, *, binary: bool = False, network=ToyDenoiser, watch=lambda at: None, **settings
) -> list[int]:
    """How often the host waits, iteration by iteration, after the first, which puts tables on the device."""
    classifier, denoiser, counts = ToyClassifier(binary=binary).to("meta"), network().to("meta"), []
    denoiser.channels = 3  # of grey pictures, too
    networks = {"classifier": lambda image: classifier(colour(image)), "denoiser": denoiser}
    task = toy_task(**networks, attack_iterations=ITERATIONS, **settings)
    region = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool, device="meta")

    with Waits() as waits:

        def see(at: Progress) -> None:
            watch(at)
            counts.append(len(waits.seen))

        batch = judge(torch.zeros(2, channels, SIDE, SIDE, device="meta"), task, region=region).aimed()
        (done,) = attacked(Progress.begin(batch), 2, 2, on_iteration=see)
    assert done.iterations.tolist() == [len(counts)] * 2
    return [after - before for before, after in zip(counts, counts[1:], strict=False)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_no_iteration_of_any_attack_waits_for_the_device(method, way):
    waits = waits_of_each_iteration(attack_method=method, label_target=1, **WAYS[way])
    assert waits == [0] * (ITERATIONS - 1)


@pytest.mark.parametrize("settings", [{"channels": 1}, {"label_target": -1}, {"binary": True}])
def test_nor_does_one_of_other_pictures_and_targets(settings):
    assert waits_of_each_iteration(**settings) == [0] * (ITERATIONS - 1)


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_where_pictures_may_end_early_an_iteration_reads_once(method):
    settings = {"attack_stop_confidence": 0.5, "attack_stop_patience": 99}
    assert waits_of_each_iteration(attack_method=method, label_target=1, **settings) == [1] * (ITERATIONS - 1)


def test_nor_does_the_network(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which meta is not known to
    assert waits_of_each_iteration(network=toy_unet, attack_filter="one-step") == [0] * (ITERATIONS - 1)


def test_a_watcher_is_told_how_far_it_is_for_nothing():
    assert waits_of_each_iteration(watch=lambda at: (at.told, at.iteration)) == [0] * (ITERATIONS - 1)


READS = {
    "a number": lambda x: x.sum().item(),
    "a decision": lambda x: bool(x.isfinite().all()),
    "pixels": lambda x: x[x > 0],
    "a copy": lambda x: x.cpu(),
    "a list": lambda x: x.tolist(),
    "an upload": lambda x: torch.zeros(3).to(x.device),
    "filling": lambda x: x.clone().copy_(torch.zeros(x.shape)),
    "places": lambda x: x[torch.tensor([0, 1])],
}


@pytest.mark.parametrize("read", READS)
def test_each_read_is_counted(read):
    with Waits() as waits, suppress(NotImplementedError):  # of a mask, without data nobody knows how many pixels it has
        READS[read](torch.zeros(2, 3, SIDE, SIDE, device="meta"))
    assert len(waits.seen) == 1
