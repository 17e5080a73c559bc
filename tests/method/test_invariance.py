"""A picture's result is a function of weights, flags, seed and index: batch, order and chunk do not enter."""

from functools import cache

import pytest
import torch

from ace_counterfactuals.core.base.runtime import make_deterministic
from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.task import judge
from tests.support.toys import Workshop, pictures, relative_distance, toy_task, toy_unet, tree

INDICES = [10, 11, 12, 13]
UNETS = {dtype: toy_unet(dtype) for dtype in (torch.float32, torch.float64)}


def task_of(dtype, **changes):
    return toy_task(dtype, denoiser=UNETS[dtype], dist_l1=0.01, label_target=1, **changes)


@cache
def explained(places=(0, 1, 2, 3), method="PGD"):
    """In double precision, of these of four pictures."""
    image, indices = pictures(4, torch.float64)[list(places)], [INDICES[i] for i in places]
    return explain(image, task_of(torch.float64, dist_l2=0.01, attack_method=method), indices=indices)


def first_gradient(image, indices, dtype):
    batch = judge(image, task_of(dtype), indices).aimed()
    return make_grad_fn(batch, ATTACKS["PGD"])(image, 0)


SUMS = 800
"""Roundings that another order of the sums may add up to: some 100 layers and steps, each amplifying a little."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_gradient_is_the_same_alone_and_in_a_batch(dtype):
    image = pictures(4, dtype)
    together = first_gradient(image, INDICES, dtype)
    for i in range(4):
        alone = first_gradient(image[i : i + 1], INDICES[i : i + 1], dtype)
        assert relative_distance(together[i : i + 1], alone) < SUMS * torch.finfo(dtype).eps


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W", "None"])
@pytest.mark.parametrize("arrangement", ["alone", "reversed", "among others"])
def test_in_double_precision_the_whole_result_is_the_same(method, arrangement):
    places = {"alone": (2,), "reversed": (3, 2, 1, 0), "among others": (1, 2)}[arrangement]
    together, found = explained(method=method), explained(places, method)
    for name in ("pre_explanation", "counterfactual", "noised", "mask", "cf_logits"):
        # A gradient step of GD and the mask's division pass on what SUMS allows, 2e-13, amplified 10,000-fold at most.
        torch.testing.assert_close(getattr(found, name), getattr(together, name)[list(places)], atol=1e-8, rtol=1e-8)
    assert torch.equal(found.keep, together.keep[list(places)])


def test_the_result_goes_by_the_index_and_not_by_the_place():
    image, task = pictures(1, torch.float64), task_of(torch.float64)
    one, other = (explain(image, task, indices=[index]).counterfactual for index in (0, 1))
    assert not torch.equal(one, other)


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


@pytest.fixture
def torch_flags():
    """--cudnn_deterministic changes torch for the whole process: change it back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.deterministic = before[1]


def pictures_and_records(workshop, exp_name="exp"):
    return {
        name: data
        for name, data in tree(workshop.results(exp_name)).items()
        if not name.endswith(("summary.yaml", "results.csv", "sheet.png", "config.yaml"))
    }


@pytest.mark.parametrize("batch_size", [4, 5])
def test_with_deterministic_kernels_the_chunks_give_the_bytes_of_the_whole(workshop, torch_flags, batch_size):
    """Every batch is padded to its full size, so that no kernel is chosen by how many pictures are left."""
    settings = {"batch_size": batch_size, "cudnn_deterministic": True}
    workshop.run(exp_name="whole", **settings)
    for chunk in (1, 0, 2):
        workshop.run(exp_name="chunks", chunk=chunk, chunks=3, **settings)
    assert pictures_and_records(workshop, "chunks") == pictures_and_records(workshop, "whole")


def test_with_deterministic_kernels_the_first_batch_size_of_an_experiment_is_kept(workshop, torch_flags, capsys):
    workshop.run(exp_name="whole", batch_size=2, cudnn_deterministic=True)
    workshop.run(exp_name="parts", batch_size=2, cudnn_deterministic=True, num_samples=3)
    workshop.run(exp_name="parts", batch_size=3, cudnn_deterministic=True)
    assert "batch_size 3 is taken as 2" in capsys.readouterr().err
    assert pictures_and_records(workshop, "parts") == pictures_and_records(workshop, "whole")


def test_with_deterministic_kernels_a_picture_ends_with_the_same_bytes_whoever_leaves_the_batch(torch_flags):
    make_deterministic()
    settings = {"attack_stop_confidence": 0.5, "attack_iterations": 12, "attack_step": 8.0}
    task, image = task_of(torch.float32, **settings), pictures(4)
    whole = explain(image, task, indices=INDICES)
    assert len(set(whole.iterations.tolist())) > 1
    for i, index in enumerate(INDICES):
        padded = explain(image[[i] * 4], task, indices=[index] * 4)
        assert padded.iterations[0] == whole.iterations[i]
        assert torch.equal(padded.counterfactual[0], whole.counterfactual[i])


@pytest.mark.parametrize("changes", [{"num_workers": 3}, {"attack_joint_checkpoint": True, "batch_size": 1}])
def test_reading_ahead_and_checkpointing_leave_no_trace(workshop, changes):
    settings = {"batch_size": 1, "num_samples": 3}
    workshop.run(exp_name="plain", **settings)
    workshop.run(exp_name="other", **{**settings, **changes})
    plain, other = (pictures_and_records(workshop, name) for name in ("plain", "other"))
    if "num_workers" in changes:
        assert other == plain
    else:  # other sums in the last bits, which a sign may amplify
        assert other.keys() == plain.keys()
