"""Each data set gives the pictures that the original read, in its order, with its labels."""

import hashlib
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base.settings import flag_items
from ace_counterfactuals.core.data.datasets import DATASETS, celeba_attributes, imagenet_classes
from ace_counterfactuals.core.data.imageset import open_dataset, prefetch, select
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.paths import GOLDEN

DATA = GOLDEN / "data"
SMILING = 31


def celeba(**options):
    return open_dataset("CelebA", DATA / "celeba", image_size=16, **{"label_query": SMILING, **options})


def picture(path, size=(20, 12), color=(200, 30, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


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
    images = open_dataset(dataset, DATA / folder, image_size=64, label_query=SMILING)
    chosen = select(images, label_target=target, num_samples=len(recorded))
    assert torch.equal(torch.stack([sample.image for sample in chosen]), recorded)


def test_imagenet_pictures_equal_what_the_original_read():
    """The recorded case is too large to keep; this is the SHA-256 of its x.npy's bytes."""
    images = open_dataset("ImageNet", DATA / "imagenet", image_size=256)
    chosen = select(images, label_target=2, label_query=1, num_samples=2)
    pixels = torch.stack([sample.image for sample in chosen]).mul(255).round().to(torch.uint8).numpy()
    digest = "3b108056ffe6362409281ca98a466737f3b82f9f5b32d96ddbee068541254095"
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest


@pytest.mark.parametrize("name", [name for name, spec in DATASETS.items() if spec.heads or spec.arch])
def test_every_published_layout_opens_without_losing_a_picture(name):
    query = SMILING if name.startswith("CelebA") else 1
    images = open_dataset(name, DATA / name.lower().replace("celebamv", "celeba"), image_size=16, label_query=query)
    assert len(images) > 0
    assert not any("skipped" in notice for notice in images.notices)


def test_celeba_explains_the_validation_partition_in_file_order():
    assert [record.path.stem for record in celeba().records] == [f"{i:06}" for i in range(201, 213)]


def test_celeba_trains_on_partition_0():
    images = celeba(split="train")
    assert [record.path.stem for record in images.records] == ["000001", "000002", "000003", "000004"]


def test_an_attribute_of_minus_one_is_label_0():
    lines = (DATA / "celeba/list_attr_celeba.csv").read_text().splitlines()[201:213]
    assert [r.label for r in celeba().records] == [int(line.split(",")[1 + SMILING] == "1") for line in lines]


def test_an_attribute_can_be_given_by_name():
    assert celeba(label_query="Smiling").query == SMILING
    assert celeba(label_query="Smiling").class_names == ("not Smiling", "Smiling")


def test_the_mini_val_is_drawn_with_pythons_generator_seeded_with_5():
    drawn = sorted(random.Random(5).choices(range(12), k=1000))
    images = open_dataset("CelebAMV", DATA / "celeba", image_size=16, label_query=SMILING)
    assert [int(record.path.stem) - 201 for record in images.records] == drawn
    assert [record.index for record in images.records] == list(range(1000))


def test_celebahq_explains_the_test_partition_through_the_mapping():
    images = open_dataset("CelebAHQ", DATA / "celebahq", image_size=16, label_query="Young")
    assert [record.path.name for record in images.records] == [f"{i}.jpg" for i in range(60, 68)]


def test_bdd_pictures_are_twice_as_wide_as_high_and_sorted_by_name():
    images = open_dataset("BDD100k", DATA / "bdd100k", image_size=16, label_query=0)
    assert images[0].image.shape == (3, 16, 32)
    assert [record.path.stem for record in images.records] == [f"b00{i}" for i in range(6)]
    assert {record.label for record in images.records} == {1}


def test_bdd_pictures_are_resized_with_the_bicubic_kernel():
    images = open_dataset("BDD100k", DATA / "bdd100k", image_size=16, label_query=0)
    with Image.open(images.records[2].path) as image:
        expected = np.asarray(image.resize((32, 16), Image.Resampling.BICUBIC))
    assert np.array_equal((images[2].image * 255).round().numpy(), expected.transpose(2, 0, 1))


def test_bdd_oia_leaves_out_scenes_in_which_no_decision_can_be_made():
    images = open_dataset("BDDOIA", DATA / "bddoia", image_size=16, label_query="left")
    assert [(r.path.stem, r.label) for r in images.records] == [
        ("o000", 1),
        ("o001", 1),
        ("o002", 0),
        ("o003", 1),
        ("o004", 1),
    ]


@pytest.mark.parametrize("where", ["train", "images/100k/train"])
def test_bdd_trains_on_the_pictures_below_train(tmp_path, where):
    picture(tmp_path / where / "b.jpg")
    picture(tmp_path / where / "a/c.jpg")
    images = open_dataset("BDD100k", tmp_path, image_size=8, split="train")
    assert [str(r.path.relative_to(tmp_path / where)) for r in images.records] == ["a/c.jpg", "b.jpg"]


def test_the_wordnet_ids_are_those_of_imagenet_in_order():
    ids, names = imagenet_classes()
    assert list(ids) == sorted(ids) and list(ids.values()) == list(range(1000)) and len(names) == 1000
    spots = {"n01440764": "tench", "n02123045": "tabby", "n02389026": "sorrel", "n02391049": "zebra"}
    spots |= {"n02690373": "airliner", "n15075141": "toilet tissue", "n02510455": "giant panda"}
    assert {wordnet_id: names[ids[wordnet_id]] for wordnet_id in spots} == spots


def test_a_subset_of_imagenets_folders_keeps_the_labels_of_the_whole(tmp_path):
    for folder in ("n02391049", "n02389026"):
        picture(tmp_path / folder / "x.JPEG")
    images = open_dataset("ImageNet", tmp_path, image_size=8)
    assert [record.label for record in images.records] == [339, 340]
    assert images.notices == ()


def test_unknown_imagenet_folders_are_numbered_in_sorted_order_with_a_notice(tmp_path):
    for folder in ("n01440764", "zeta", "alpha"):  # the first is label 0
        picture(tmp_path / folder / "x.png")
    images = open_dataset("ImageNet", tmp_path, image_size=8)
    assert {r.path.parent.name: r.label for r in images.records} == {"n01440764": 0, "alpha": 1, "zeta": 2}
    assert "alpha = 1, zeta = 2" in images.notices[0]


def test_class_folders_are_labelled_in_sorted_order(tmp_path):
    for name in ("b/2.png", "b/1.jpg", "a/x.webp", ".hidden/y.png", "a/.z.png", "a/notes.txt"):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).touch()
    images = open_dataset("Folder", tmp_path, image_size=8)
    assert [(r.path.name, r.label) for r in images.records] == [("x.webp", 0), ("1.jpg", 1), ("2.png", 1)]
    assert images.class_names == ("a", "b")


def test_pictures_without_class_folders_have_an_unknown_label(tmp_path):
    picture(tmp_path / "x.png")
    images = open_dataset("Folder", tmp_path, image_size=8)
    assert images[0].label == -1
    assert "unknown" in images.notices[0]


def test_folders_that_are_numbers_out_of_order_are_pointed_out(tmp_path):
    for name in ("1", "2", "10"):
        picture(tmp_path / name / "x.png")
    assert "10 = 1" in open_dataset("Folder", tmp_path, image_size=8).notices[0]


def test_csv_labels_may_be_names(tmp_path):
    picture(tmp_path / "sub/x.png")
    picture(tmp_path / "y.png")
    (tmp_path / "labels.csv").write_text("label,file\ndog,./y.png\ncat,sub/x.png\n")
    images = open_dataset("CSV", tmp_path, image_size=8)
    assert [(r.path.name, r.label) for r in images.records] == [("y.png", 1), ("x.png", 0)]
    assert images.class_names == ("cat", "dog")


def test_csv_labels_may_be_indices(tmp_path):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text('file,label\r\n"x.png",7\r\n')
    assert open_dataset("CSV", tmp_path, image_size=8)[0].label == 7


@pytest.mark.parametrize("name", ["CelebA", "ImageNet"])
def test_the_image_size_is_honoured(name):
    images = open_dataset(name, DATA / name.lower(), image_size=24, label_query=SMILING)
    assert images[0].image.shape == (3, 24, 24)


def test_the_attribute_table_has_a_row_for_every_index_of_the_training_partition():
    table = celeba_attributes(DATA / "celeba")
    assert table.shape == (200, 40)
    records = celeba(split="train").records
    assert [table[r.index, SMILING] for r in records] == [r.label for r in records]


def test_celebahqs_attribute_table_goes_through_the_mapping():
    test = open_dataset("CelebAHQ", DATA / "celebahq", image_size=16, label_query=SMILING)
    table = celeba_attributes(DATA / "celebahq", "CelebAHQ", partition=2)
    assert table[:, SMILING].tolist() == [record.label for record in test.records]


def test_a_missing_picture_moves_no_index(tmp_path):
    shutil.copytree(DATA / "celeba", tmp_path / "celeba")
    (tmp_path / "celeba/img_align_celeba/000202.jpg").unlink()
    images = open_dataset("CelebA", tmp_path / "celeba", image_size=16, label_query=SMILING)
    assert [record.index for record in images.records] == [0, *range(2, 12)]
    assert "1 of the 12" in images.notices[0] and "000202.jpg" in images.notices[0]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_the_order(workers):
    order = [3, 0, 11, 5, 5, 7, 1, 2, 10]
    assert [sample.index for sample in prefetch(celeba(), order, workers)] == order


def test_prefetching_looks_only_a_little_ahead():
    taken = []
    ahead = prefetch(celeba(), (taken.append(i) or i for i in range(12)), workers=2)
    next(ahead)
    ahead.close()
    assert len(taken) == 5


def test_prefetching_looks_as_far_ahead_as_it_is_asked_to():
    taken: list[int] = []
    ahead = prefetch(celeba(), (taken.append(i) or i for i in range(12)), workers=2, ahead=7)
    next(ahead)
    assert len(taken) == 8
    ahead.close()


def test_the_flag_offers_the_table_in_its_order():
    assert list(flag_items(MainConfig)["dataset"].choices) == list(DATASETS)
