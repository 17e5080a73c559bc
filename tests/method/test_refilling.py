"""A picture that is done makes room for the next, and its result depends on itself alone."""

import pytest
import torch

from ace_counterfactuals.core.base.runtime import make_deterministic
from ace_counterfactuals.core.method.attacking import attack, attacked
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import judge
from tests.support.toys import pictures, toy_task

ITERATIONS, COUNT = 12, 9
STEPS = {"PGD": 2.0, "GD": 15.0, "C&W": 5.0}


def batch_of(places, dtype=torch.float64, **settings):
    changes = {"attack_iterations": ITERATIONS, "label_target": 1, "attack_stop_confidence": 0.5, **settings}
    changes.setdefault("attack_step", STEPS[changes.setdefault("attack_method", "PGD")])
    return judge(pictures(COUNT, dtype)[places], toy_task(dtype, **changes), indices=[*places]).aimed()


def refilled(order=range(COUNT), size=3, on_iteration=None, **settings):
    """Index -> picture and iterations, and the groups."""
    waiting, groups = [*order], []

    def more(room):
        places, waiting[:] = waiting[:room], waiting[room:]
        return batch_of(places, **settings) if places else None

    while batch := more(size):
        groups += attacked(Progress.begin(batch), size, size, more, on_iteration)
    found = {i: pair for g in groups for i, *pair in zip(g.batch.indices, g.found, g.iterations.tolist(), strict=True)}
    return found, groups


@pytest.mark.parametrize("settings", [{"attack_method": method} for method in STEPS] + [{"label_target": -1}])
def test_in_any_order_and_batch_a_picture_takes_its_own_way(settings):
    alone, _ = refilled(size=1, **settings)
    together, groups = refilled(order=[*reversed(range(COUNT))], **settings)
    assert len({iterations for _, iterations in alone.values()}) > 1 and len(together) == COUNT
    assert max(len(group) for group in groups) == 3
    for index, (picture, iterations) in alone.items():
        assert together[index][1] == iterations
        # In float64 a batch's other sums differ by some 1e-13 in a gradient, of which an attack takes the sign.
        torch.testing.assert_close(together[index][0], picture, atol=1e-8, rtol=0)


def test_a_picture_that_is_done_costs_nothing():
    """All pictures' iterations are computed in as few as fit ``size`` together, but for the last ones."""
    seen = []
    found, _ = refilled(on_iteration=seen.append)
    total, longest = sum(iterations for _, iterations in found.values()), max(i for _, i in found.values())
    assert total / 3 <= len(seen) <= total / 3 + longest
    assert len(seen) < sum(max(found[i][1] for i in range(first, first + 3)) for first in range(0, COUNT, 3))


def test_a_picture_that_never_flips_runs_its_iterations_and_holds_up_nobody():
    found, groups = refilled(order=[7, *range(7), 8], attack_method="C&W")
    assert found[7][1] == ITERATIONS
    assert 7 not in groups[0].batch.indices and len(groups[0]) == 3


def test_without_a_confidence_nobody_asks_for_more():
    batch = batch_of([0, 1], attack_stop_confidence=1.0)
    (done,) = attacked(Progress.begin(batch), 4, 4, lambda room: pytest.fail("was asked"))
    assert torch.equal(done.found, attack(batch)[0]) and done.iterations.tolist() == [ITERATIONS] * 2


def test_with_deterministic_kernels_the_bytes_are_the_same_in_any_order():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    make_deterministic()
    try:
        one, _ = refilled(size=4, dtype=torch.float32)
        other, _ = refilled(order=[5, 0, 8, 2, 7, 1, 4, 3, 6], size=4, dtype=torch.float32)
        alone = {i: refilled(order=[i], size=4, dtype=torch.float32)[0][i] for i in (0, 5)}
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.deterministic = before[1]
    for found in (other, alone):
        assert all(torch.equal(picture, one[i][0]) and n == one[i][1] for i, (picture, n) in found.items())
