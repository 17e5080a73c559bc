"""Selecting by label, number and chunk: which pictures are left, under which names, and that none is opened."""

import random
from pathlib import Path

import PIL.Image
import pytest

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.imageset import (
    EmptySelection,
    ImageSet,
    open_dataset,
    resolve_label,
    select,
)
from ace_counterfactuals.core.data.labels import listed, resolve_name
from ace_counterfactuals.core.data.pictures import resize_crop
from ace_counterfactuals.core.data.specs import PictureFile
from tests.support.paths import GOLDEN

DATA = GOLDEN / "data"


def make(labels, *, binary=False, names=("ant", "bee", "cow")):
    records = [PictureFile(i, Path(f"{i}.png"), label) for i, label in enumerate(labels)]
    return ImageSet(name="Toy", binary=binary, records=records, transform=resize_crop, class_names=names)


def indices(images):
    return [record.index for record in images.records]


def test_without_a_target_every_picture_is_kept():
    assert indices(select(make([0, 1, 2]))) == [0, 1, 2]


def test_a_binary_target_keeps_the_other_label():
    assert indices(select(make([0, 1, 1, 0], binary=True, names=("not x", "x")), label_target=1)) == [0, 3]


def test_a_multi_class_target_keeps_the_queried_class():
    assert indices(select(make([0, 1, 2, 1]), label_target=2, label_query=1)) == [1, 3]


def test_labels_can_be_given_by_name():
    assert indices(select(make([0, 1, 2, 1]), label_target="cow", label_query="bee")) == [1, 3]


def test_pictures_of_unknown_label_can_all_be_sent_to_a_target():
    assert indices(select(make([-1, -1], names=None), label_target=2)) == [0, 1]


def test_the_number_bounds_what_the_label_left():
    assert indices(select(make([0, 1, 1, 1]), label_target=0, label_query=1, num_samples=2)) == [1, 2]


def test_a_chunk_is_a_residue_of_the_index_in_the_whole_set():
    images = make([0, 1] * 4)
    assert indices(select(images, label_target=0, label_query=1, chunk=1, chunks=4)) == [1, 5]


def test_the_chunks_together_are_the_whole_selection():
    images = make([random.Random(i).randrange(3) for i in range(50)])
    whole = indices(select(images, num_samples=31))
    parts = [indices(select(images, num_samples=31, chunk=c, chunks=4)) for c in range(4)]
    assert sorted(sum(parts, [])) == whole


def test_an_empty_selection_says_how_many_there_were_and_which_rule_removed_them():
    with pytest.raises(EmptySelection, match="0 keeps .*2 cow.* of the 3 of .*1 x 0 ant, 2 x 1 bee") as caught:
        select(make([0, 1, 1]), label_target=0, label_query=2)
    assert caught.value.field == "label_target"


def test_a_target_without_a_query_says_what_is_not_given():
    with pytest.raises(EmptySelection, match="label_query -1 .unknown., which is not given"):
        select(make([0, 1]), label_target=0)


def test_an_empty_chunk_is_told_from_an_empty_selection():
    with pytest.raises(EmptySelection) as caught:
        select(make([0, 1]), chunk=2, chunks=3)
    assert caught.value.field == "chunk"


@pytest.mark.parametrize(
    ("options", "field", "fact"),
    [
        ({"num_samples": 0}, "num_samples", "0"),
        ({"chunk": 2, "chunks": 2}, "chunk", "2: .*0 to 1"),
        ({"chunk": -1}, "chunk", "-1"),
        ({"label_target": 3}, "label_target", "3: .*0 ant, 1 bee, 2 cow"),
        ({"label_target": -2}, "label_target", "-2"),
        ({"label_target": 0, "label_query": "bees"}, "label_query", "bees: .*did you mean bee?"),
    ],
)
def test_what_cannot_be_selected_is_named(options, field, fact):
    with pytest.raises(FlagError, match=fact) as caught:
        select(make([0, 1, 2]), **options)
    assert caught.value.field == field


def test_a_binary_set_has_only_two_targets():
    with pytest.raises(FlagError, match="label_target 2: .*0 not x, 1 x"):
        select(make([0, 1], binary=True, names=("not x", "x")), label_target=2)


def test_a_name_is_tried_before_an_equal_number():
    assert resolve_name(("1", "10", "2"), "2", "label_query", "it") == 2
    assert resolve_name(("1", "10", "2"), 2, "label_query", "it") == 2
    assert resolve_name(("1", "10", "2"), "10", "label_query", "it") == 1


def test_without_names_only_an_index_is_taken():
    assert resolve_name(None, "7", "label_target", "it") == 7
    with pytest.raises(ValueError, match="it has no named classes"):
        resolve_name(None, "cat", "label_target", "it")


def test_imagenet_classes_go_by_name_wordnet_id_or_index():
    images = open_dataset("ImageNet", DATA / "imagenet", image_size=8)
    assert [resolve_label(images, text, "label_query") for text in ("zebra", "n02391049", "340", 340)] == [340] * 4


def test_a_long_list_of_names_is_cut_short():
    assert listed(dict.fromkeys(range(100), "x")).endswith(", 39 x, ... (60 more)")


def test_selecting_by_label_among_many_pictures_opens_none(tmp_path, monkeypatch):
    big_celeba(tmp_path, 3000)

    def refuse(*args, **kwargs):
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(PIL.Image, "open", refuse)
    images = open_dataset("CelebA", tmp_path, image_size=128, label_query=31)
    chosen = select(images, label_target=1, num_samples=1000, chunk=1, chunks=2)
    assert len(images) == 3000
    assert {(record.label, record.index % 2) for record in chosen.records} == {(0, 1)}


def big_celeba(folder, count):
    """The validation layout with empty files for pictures."""
    signs, names = random.Random(0), [f"{i:06}.jpg" for i in range(count)]
    (folder / "img_align_celeba").mkdir()
    for name in names:
        (folder / "img_align_celeba" / name).touch()
    rows = [",".join([name, *signs.choices(("1", "-1"), k=40)]) for name in names]
    header = ",".join(["image_id", *(f"attribute_{i}" for i in range(40))])
    (folder / "list_attr_celeba.csv").write_text("\n".join([header, *rows]))
    (folder / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *(f"{n},1" for n in names)]))
