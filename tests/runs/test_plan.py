"""What a run takes is planned from its settings, and auto is what fits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ace_counterfactuals.core.base.settings import AUTO, FlagError, from_dict
from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.footprint import kept_bytes, peak_bytes
from ace_counterfactuals.core.method.gradients import leaf
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.core.runs import plan as module
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import CONFIG
from ace_counterfactuals.core.runs.plan import LOOSE, SCRATCH, SHARE, Needs, Way, decide, needs_of, way_of
from ace_counterfactuals.core.runs.setup import check
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from tests.support.toys import ToyDenoiser, Workshop, attack_config, pictures, toy_task

NONE = Path("no folder")
NEEDS = Needs(kept=1000, beside=100, state=10, refinement=50)
WAYS = {
    "chain": ({}, Way(3, 0, 3, 3)),
    "one step": ({"attack_filter": "one-step"}, Way(1, 0, 1, 1)),
    "each step stored": ({"attack_joint_checkpoint": True}, Way(1, 3, 5, 3)),
    "every second": ({"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": 2}, Way(2, 2, 5, 3)),
    "one segment": ({"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": 9}, Way(3, 1, 3, 3)),
    "shortcut": ({"attack_joint_shortcut": True}, Way(0, 0, 3, 0)),
    "classifier alone": ({"attack_joint": False}, Way()),
    "no attack": ({"attack_method": "None"}, Way()),
}


class Counting(ToyDenoiser):
    """Counts its calls, and those of its backward pass."""

    def __init__(self):
        super().__init__()
        self.forward_calls = self.backward_calls = 0

    def forward(self, x_t, timesteps, classes=None):
        self.forward_calls += 1
        found = super().forward(x_t, timesteps)
        if found.requires_grad:
            found.register_hook(self.count)
        return found

    def count(self, gradient):
        self.backward_calls += 1


def batch_of(count=2, **settings):
    return judge(pictures(count), toy_task(**settings)).aimed_at(torch.ones(count, dtype=torch.int64))


@pytest.mark.parametrize(("settings", "way"), WAYS.values(), ids=WAYS)
def test_calls_are_counted_as_they_are_made(settings, way):
    network = Counting()
    batch = batch_of(denoiser=network, **settings)
    assert way_of(batch.task.attack, batch.filter.steps) == way
    if attack := ATTACKS[batch.task.attack.attack_method]:
        make_grad_fn(batch, attack)(batch.image, 0)
    assert (network.forward_calls, network.backward_calls) == (way.forward, way.backward)


@pytest.mark.parametrize("settings", [settings for settings, _ in WAYS.values()], ids=WAYS)
def test_a_picture_takes_what_is_planned(settings):
    batch = batch_of(1, **settings)
    needs, steps = needs_of(batch), batch.filter.steps
    if attack := ATTACKS[batch.task.attack.attack_method]:
        real = peak_bytes(lambda: make_grad_fn(batch, attack)(batch.image, 0))
        noise = 3 * needs.state  # of a step above the last, and what is made of it
        taken = max(real, needs.refinement)
        assert needs.each(way_of(batch.task.attack, steps)) == pytest.approx(taken, abs=noise)


def test_each_step_of_a_chain_keeps_what_is_planned():
    batch = batch_of(1, sampling_time_fraction=0.8)
    needs, filter_ = needs_of(batch), batch.filter
    with torch.enable_grad():
        real = kept_bytes(lambda: filter_(leaf(batch.image), batch.noise(0)), batch.task.denoiser.parameters())
    assert filter_.steps * needs.kept == pytest.approx(real, rel=0.05)


def test_a_network_that_looks_at_values_is_measured_by_a_run(caplog):
    class Looking(ToyDenoiser):
        def forward(self, x_t, timesteps, classes=None):
            assert x_t.isfinite().all()
            return super().forward(x_t, timesteps)

    caplog.set_level("INFO", "ace_counterfactuals")
    assert needs_of(batch_of(denoiser=Looking())).kept == needs_of(batch_of()).kept
    assert "looks at values" in caplog.text


def test_planning_leaves_networks_and_tables_as_they_were():
    batch = batch_of()
    before = make_grad_fn(batch, ATTACKS["PGD"])(batch.image, 0)
    fresh = batch_of()
    needs_of(fresh)
    assert torch.equal(make_grad_fn(fresh, ATTACKS["PGD"])(fresh.image, 0), before)


@pytest.fixture
def having(monkeypatch):
    """Decide, where so many bytes are free and a picture takes NEEDS."""

    def decided(free, *, pictures=1000, root=NONE, **flags):
        monkeypatch.setattr(module, "free_bytes", lambda device: free)
        monkeypatch.setattr(module, "needs_of", lambda batch: NEEDS)
        flags = {"batch_size": AUTO} | flags
        config = from_dict(MainConfig, flags)
        found = decide(config, root, batch_of(attack_iterations=2, sampling_time_fraction=0.4), pictures)
        return found.run.batch_size, found.attack.attack_checkpoint_backward_steps

    return decided


def room(way, count):
    return int((SCRATCH + LOOSE * count * NEEDS.each(way)) / SHARE) + 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_as_many_pictures_are_taken_as_fit(having, count):
    assert having(room(Way(4), count)) == (count, 1)


def test_no_more_pictures_are_taken_than_there_are(having):
    assert having(2**40, pictures=3) == (3, 1) and having(2**40) == (module.FEW, 1)


def test_the_flag_is_named_where_not_even_one_picture_fits(having):
    with pytest.raises(FlagError, match="batch_size auto: not even one picture fits.* attack_joint_checkpoint True"):
        having(room(Way(4), 1) - 10)
    with pytest.raises(FlagError, match="batch_size auto: not even one picture fits.* use_checkpoint True"):
        having(0, attack_filter="one-step")
    steps = {"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": AUTO}
    with pytest.raises(FlagError, match="attack_checkpoint_backward_steps auto: 3 pictures.* a smaller batch_size"):
        having(0, batch_size=3, **steps)


def test_the_fewest_calls_that_fit_are_made(having):
    steps = {"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": AUTO}
    assert having(room(Way(4, 1), 5), **steps) == (5, 4)
    assert having(room(Way(4, 1), 1) - 10, **steps) == (1, 2)
    assert having(room(Way(2, 2), 1) - 10, **steps) == (1, 1)
    assert having(room(Way(2, 2), 3), batch_size=3, **steps) == (3, 2)


def test_with_deterministic_kernels_the_size_that_an_experiment_began_with_is_kept(having, tmp_path):
    (tmp_path / CONFIG).write_text("flags: {}\nweights: {}\nbatch_size: 2\n")
    kept = {"root": tmp_path, "cudnn_deterministic": True}
    assert having(2**40, **kept) == (2, 1)
    with pytest.raises(FlagError, match="batch_size auto: 2 pictures at once do not fit"):
        having(room(Way(4), 1), **kept)


def test_without_auto_nothing_is_planned():
    config = from_dict(MainConfig, {})
    assert decide(config, NONE, None, 0) is config


@pytest.mark.slow
def test_a_run_decides_and_gives_the_same_results(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    workshop.run(exp_name="auto", batch_size=AUTO, num_samples=3)
    said = capsys.readouterr().err
    assert (
        "batch_size auto is 3: about " in said and "auto" not in (workshop.results("auto") / "config.yaml").read_text()
    )
    workshop.run(exp_name="one", batch_size=1, num_samples=3)
    found = [(workshop.results(name) / "summary.yaml").read_text() for name in ("auto", "one")]
    assert found[0].splitlines()[:3] == found[1].splitlines()[:3]


@pytest.mark.slow
def test_what_turns_out_too_large_is_halved(tmp_path, capsys, monkeypatch):
    workshop, own = Workshop(tmp_path), UNetModel.forward

    def greedy(self, x, timesteps, y=None):
        if len(x) > 2 and torch.is_grad_enabled():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return own(self, x, timesteps, y)

    monkeypatch.setattr(UNetModel, "forward", greedy)
    workshop.run(batch_size=AUTO, num_samples=5)
    assert "batch_size 5 takes more memory than there is; going on with 2" in capsys.readouterr().err
    assert len(list(workshop.results().glob("records/*"))) == 5
    assert workshop.exit_code(exp_name="fixed", batch_size=5) == 2
    assert "--batch_size 5: the device has too little memory" in capsys.readouterr().err


def test_other_programs_want_a_number():
    with pytest.raises(FlagError, match="batch_size auto: only a run of main.py"):
        check(replace(from_dict(MainConfig, {"batch_size": AUTO}), attack=attack_config()))
