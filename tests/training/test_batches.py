"""Which pictures a training step sees, and how."""

import json

import numpy as np
import pytest
import torch

from ace_counterfactuals.core.base.config import SeededConfig
from ace_counterfactuals.core.data.config import PicturesConfig
from ace_counterfactuals.core.data.datasets import DATASETS
from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.core.training.config import TrainDiffusionConfig, TrainingConfig
from ace_counterfactuals.core.training.diffusion import conditions, picture_batches
from ace_counterfactuals.guided_diffusion.config import ModelConfig
from tests.support.paths import GOLDEN
from tests.support.toys import write_pictures


def config(dataset, folder, *, batch_size=6, **model):
    return TrainDiffusionConfig(
        pictures=PicturesConfig(dataset=dataset, data_dir=str(folder), image_size=8),
        training=TrainingConfig(batch_size=batch_size),
        device=SeededConfig(device="cpu", num_workers=0),
        model=ModelConfig(**model),
    )


def opened(settings):
    return open_dataset(settings.pictures.dataset, settings.pictures.data_dir, image_size=8, split="train")


def mirrored(settings):
    """Whether each picture of the first step is the mirror image of its file."""
    images = opened(settings)
    seen, _ = picture_batches(settings, images, None, 0)(0)
    wholes = [2 * sample.image - 1 for sample in images]
    assert all(any(torch.equal(x, w) or torch.equal(x, w.flip(-1)) for w in wholes) for x in seen)
    return [not any(torch.equal(x, whole) for whole in wholes) for x in seen]


def test_some_pictures_of_a_step_are_mirrored(tmp_path):
    assert 0 < sum(mirrored(config("Folder", write_pictures(tmp_path)))) < 6


@pytest.mark.parametrize("dataset", [name for name, spec in DATASETS.items() if spec.wide])
def test_driving_scenes_are_never_mirrored_and_wide(tmp_path, dataset):
    for i in range(6):
        where = tmp_path / ("data" if dataset == "BDDOIA" else "train")
        write_pictures(tmp_path / "made", seed=i)
        where.mkdir(exist_ok=True)
        (tmp_path / "made/boot/000.png").rename(where / f"{i}.jpg")
    listed = {"images": [{"file_name": f"{i}.jpg", "id": i} for i in range(6)]}
    actions = json.dumps(listed | {"annotations": [{"category": [1, 0, 0, 0, 0]}] * 6})
    (tmp_path / "train_25k_images_actions.json").write_text(actions)
    settings = config(dataset, tmp_path)
    assert picture_batches(settings, opened(settings), None, 0)(0)[0].shape == (6, 3, 8, 16)
    assert not any(mirrored(settings))


def test_a_picture_that_does_not_decode_is_left_out(tmp_path):
    settings = config("Folder", write_pictures(tmp_path))
    (tmp_path / "boot/000.png").write_bytes(b"torn")
    assert len(picture_batches(settings, opened(settings), None, 0)(0)[0]) == 5


def test_faces_are_conditioned_on_their_attributes():
    settings = config("CelebAMV", GOLDEN / "data/celeba", batch_size=2, class_cond=True)
    images = opened(settings)
    _, condition = picture_batches(settings, images, conditions(settings, images), 0)(0)
    assert condition.shape == (2, 40) and set(np.unique(condition)) == {0, 1}
