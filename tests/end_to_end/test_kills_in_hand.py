"""Killed at any instant within a batch, a run goes on with its attack, and ends with the bytes of one that was not."""

import random
import re
import signal
import time
from collections import Counter

import pytest

from ace_counterfactuals.core.base import signals
from ace_counterfactuals.core.runs import keeping, run
from ace_counterfactuals.core.runs.setup import load_denoiser
from tests.support.killing import run_child
from tests.support.toys import CLASSES, ToyClassifier, Workshop, tree, write_pictures

METHODS = {"PGD": 5, "GD": 30, "C&W": 60}  # with steps at which pictures end early
KILLS = 6  # of a folder, at most


class Case:
    """One way to run: what it leaves when nobody kills it, its iterations, and the seconds that a process takes."""

    def __init__(self, shop, name, settings, chunks):
        self.shop, self.settings, self.chunks = shop, settings, chunks
        started = time.monotonic()
        self.iterations = {line for chunk in range(chunks) for line in self.child(name, chunk).begun}
        self.seconds = (time.monotonic() - started) / chunks
        self.files = self.complete(name)

    def child(self, name, chunk, **killing):
        split = {"chunks": self.chunks, "chunk": chunk, "output_path": self.shop.folder / name}
        return run_child(self.shop.arguments(**self.settings, **split), self.shop.folder / "printed.txt", **killing)

    def complete(self, name):
        output = self.shop.folder / name
        run_child(self.shop.arguments(**self.settings, output_path=output), self.shop.folder / "printed.txt")
        return {path: data for path, data in tree(output).items() if not re.search(r"/c-\d+_\d+-", path)}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Each iteration's state is written; a signal that can be caught waits for a moment only."""
    toy, shop = ToyClassifier(), Workshop(tmp_path)
    toy.class_names, toy.num_outputs = CLASSES, len(CLASSES)
    write_pictures(shop.data, 18)
    monkeypatch.setattr(run, "load_networks", lambda config, query, device: (toy, load_denoiser(config, device)))
    monkeypatch.setattr(keeping, "EVERY", 0.0)
    monkeypatch.setattr(signals, "GRACE", 0.02)
    return shop


def any_case(shop, rng, cases):
    key = (rng.choice([*METHODS]), rng.choice((1.0, 0.3)), rng.choice((1, 3)), rng.choice((1, 2)))
    if key not in cases:
        method, confidence, batch_size, chunks = key
        settings = {"attack_method": method, "attack_step": METHODS[method], "attack_stop_confidence": confidence}
        settings |= {"batch_size": batch_size, "attack_iterations": 8, "label_query": 0, "label_target": 1}
        settings |= {"cudnn_deterministic": chunks > 1}
        cases[key] = Case(shop, f"whole-{len(cases)}", settings, chunks)
    return key, cases[key]


def any_instant(rng, case):
    """SIGKILL at a fault point of an attack, also between two system calls of what writes its state, or any signal at
    a time."""
    if rng.random() < 0.4:
        return {"at": rng.randrange(1, 300), "within": "attack"}
    number = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    return {"after": rng.uniform(0, case.seconds / 2), "within": "attack", "number": number}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [8, pytest.param(200, marks=pytest.mark.long)])
def test_killed_within_a_batch_a_run_loses_one_iteration_at_most_and_ends_with_the_same_bytes(shop, wanted):
    rng, cases, lost, landed, folders = random.Random(11), {}, Counter(), Counter(), 0
    while landed.total() < wanted:
        (method, *_), case = any_case(shop, rng, cases)
        name, kills, begun, folders = f"killed-{folders}", 0, set(), folders + 1
        for chunk in range(case.chunks):
            end = None
            while end is None or end.killed:
                instant = any_instant(rng, case) if kills < KILLS else {}
                end = case.child(name, chunk, **instant)
                again = begun & {*end.begun}  # of what the last kill, if there was one, has cost
                assert len(again) <= 1, (name, case.settings, again)
                lost[len(again)] += bool(begun)
                kills, begun = kills + end.killed, begun | {*end.begun}
                if end.killed and end.phase == "attack":
                    landed[method, signal.Signals(instant.get("number", signal.SIGKILL)).name] += 1
        assert case.complete(name) == case.files, (name, case.settings)
        assert begun == case.iterations
    print(f"{folders} folders; kills within an attack: {dict(landed)}; iterations begun again: runs {dict(lost)}")
