"""Noise that is drawn in a thread while others compute is the noise that would have been drawn then."""

import threading
from collections import Counter

import pytest
import torch

from ace_counterfactuals.core.method import attacking
from ace_counterfactuals.core.method.attacking import attack, attacked
from ace_counterfactuals.core.method.noise import Ahead, Asked, Draw
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import judge
from tests.support.toys import pictures, toy_task

ITERATIONS = 5
WAYS = {
    "chain": {},
    "one step": {"attack_filter": "one-step"},
    "checkpointed": {"attack_joint_checkpoint": True},
    "shortcut": {"attack_joint_shortcut": True},
}


@pytest.fixture
def drawers(monkeypatch):
    """Thread -> how often it drew."""
    seen, drawn = Counter(), Asked.drawn

    def counting(asked):
        seen[threading.current_thread().name] += 1
        return drawn(asked)

    monkeypatch.setattr(Asked, "drawn", counting)
    return seen


def batch_of(count=3, **settings):
    task = toy_task(attack_iterations=ITERATIONS, label_target=1, **settings)
    return judge(pictures(count), task, [7, 3, 5, 4][:count]).aimed()


@pytest.mark.parametrize("way", WAYS)
def test_an_attack_finds_the_same_and_draws_all_but_the_first_noise_ahead(way, drawers, monkeypatch):
    expected, _ = attack(batch_of(**WAYS[way]))
    (drawn,) = drawers.values()
    drawers.clear()
    monkeypatch.setattr(attacking, "draws_ahead", lambda device: True)
    found, _ = attack(batch_of(**WAYS[way]))
    assert torch.equal(found, expected)
    assert drawers.total() == drawn and drawers["noise"] == drawn - drawn // ITERATIONS - 1


def test_pictures_that_end_early_find_the_same(drawers, monkeypatch):
    def found():
        batch = batch_of(4, attack_stop_confidence=0.4, attack_step=16.0)
        waiting = [batch.take([2, 3])]
        return [*attacked(Progress.begin(batch.take([0, 1])), 2, 1, lambda room: waiting.pop() if waiting else None)]

    expected = found()
    monkeypatch.setattr(attacking, "draws_ahead", lambda device: True)
    for done, before in zip(found(), expected, strict=True):
        assert done.batch.indices == before.batch.indices and torch.equal(done.found, before.found)
    assert drawers["noise"]


def test_after_an_error_no_thread_is_left(monkeypatch):
    monkeypatch.setattr(attacking, "draws_ahead", lambda device: True)
    threads = threading.active_count()

    def stop(at):
        if at.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack(batch_of(), stop)
    for thread in threading.enumerate():
        if thread.name == "noise":
            thread.join(10)
    assert threading.active_count() == threads


def test_what_no_thread_can_draw_is_drawn_when_it_is_asked_for(monkeypatch):
    drawn, ahead = Asked.drawn, Ahead(9)

    def failing(asked):
        if threading.current_thread().name == "noise":
            raise MemoryError
        return drawn(asked)

    monkeypatch.setattr(Asked, "drawn", failing)
    for i in range(5):
        asked = Asked(4, (0,), (i,), Draw.START, 3, (3, 8, 8), False)
        assert torch.equal(ahead(asked), drawn(asked))
