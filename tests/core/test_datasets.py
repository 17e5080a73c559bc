"""Each data set gives the pictures that the original read, in its order, with its labels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.datasets import open_dataset, prefetch, select

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("case", "dataset", "folder", "target"),
    [
        ("celeba_joint_det", "CelebA", "celeba", -1),
        ("celeba_joint_target1", "CelebA", "celeba", 1),
        ("celebahq_joint_det", "CelebAHQ", "celebahq", -1),
    ],
)
def test_pictures_equal_what_the_original_read(case, dataset, folder, target):
    recorded = torch.from_numpy(np.load(GOLDEN / "cases" / case / "x.npy")).float() / 255
    images = open_dataset(dataset, GOLDEN / "data" / folder, image_size=64, label_query=31)
    chosen = select(images, label_target=target, num_samples=len(recorded))
    assert torch.equal(torch.stack([sample.image for sample in chosen]), recorded)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_the_order(workers):
    images = open_dataset("CelebA", GOLDEN / "data/celeba", image_size=16, label_query=31)
    order = [3, 0, 11, 5, 5, 7, 1, 2, 10]
    assert [sample.index for sample in prefetch(images, order, workers)] == order
