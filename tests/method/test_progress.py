"""Where an attack stands: it goes on from there to the bit, and nothing else is taken for it."""

import pytest
import torch

from ace_counterfactuals.core.method.attacking import attack, attacked
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import judge
from tests.support.toys import pictures, toy_task

ITERATIONS = 5


def make_batch(**settings):
    changes = {"attack_iterations": ITERATIONS, "attack_step": 16.0, "label_target": 1, **settings}
    return judge(pictures(3), toy_task(**changes)).aimed()


@pytest.mark.parametrize("confidence", [1.0, 0.5])
@pytest.mark.parametrize("method", ["PGD", "GD", "C&W"])
def test_from_any_iteration_an_attack_goes_on_to_the_bit(method, confidence):
    batch, seen = make_batch(attack_method=method, attack_stop_confidence=confidence), []
    found, iterations = attack(batch, seen.append)
    for start in seen:
        (done,) = attacked(start, 3, 3)
        assert torch.equal(done.found, found)
        assert iterations is None or torch.equal(done.iterations, iterations)


def test_outside_its_region_an_attack_goes_on_with_the_original_picture():
    batch, seen = make_batch(), []
    region = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    region[..., :4] = True
    batch = judge(batch.image, batch.task, region=region).aimed()
    found, _ = attack(batch, seen.append)
    assert torch.equal(next(attacked(seen[2], 3, 3)).found, found)
    assert torch.equal(found[..., 4:], batch.image[..., 4:]) and not torch.equal(found, batch.image)


HOSTILE = {
    "no tensors": lambda values: values.clear(),
    "other names": lambda values: values.update(more=values["found"]),
    "other shape": lambda values: values.update(found=values["found"][..., :4].contiguous()),
    "scalars": lambda values: values.update({name: torch.tensor(1) for name in values}),
    "other type": lambda values: values.update(found=values["found"].half()),
    "iteration out of range": lambda values: values["iterations"].fill_(99),
    "before the beginning": lambda values: values["iterations"].fill_(-1),
    "NaN": lambda values: values["variable"].fill_(torch.nan),
    "no picture": lambda values: values["found"].fill_(2),
    "a negative count": lambda values: values["above"].fill_(-1),
}


@pytest.fixture(scope="module")
def stood():
    """At its beginning, and after some iterations as tensors."""
    batch, seen = make_batch(attack_method="GD"), []
    attack(batch, seen.append)
    return Progress.begin(batch), seen[2].tensors


def test_what_an_attack_left_is_taken_as_it_is(stood):
    begin, values = stood
    assert all(torch.equal(values[name], value) for name, value in begin.fitting(values).tensors.items())


@pytest.mark.parametrize("how", HOSTILE)
def test_what_no_attack_left_is_refused(stood, how):
    begin, values = stood
    values = {name: value.clone() for name, value in values.items()}
    HOSTILE[how](values)
    with pytest.raises(ValueError, match="wanted|out of range"):
        begin.fitting(values)
