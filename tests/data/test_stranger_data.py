"""A data folder of a stranger: odd names, links in a circle and labels that disagree."""

import os

import pytest
from PIL import Image

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.imageset import open_dataset, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage

ODD = os.fsdecode(b"caf\xe9.png")


def opened(folder, name="Folder"):
    return open_dataset(name, folder, image_size=8)


@pytest.fixture
def folder(tmp_path):
    for name in ("boot/a.png", "boot/d.png", "coat/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_a_strangers_file_name_that_is_not_utf8_is_skipped_by_name_and_keeps_its_index(folder):
    (folder / "boot/a.png").rename(folder / "boot" / ODD)
    images = opened(folder)
    assert [(record.index, record.path.name) for record in images.records] == [(1, "d.png"), (2, "b.png")]
    assert any(r"1 pictures whose names are not UTF-8" in said and r"caf\xe9.png" in said for said in images.notices)


def test_a_stranger_whose_every_picture_has_an_odd_name_is_told_to_rename_them(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / ODD)
    with pytest.raises(FlagError, match=r"data_dir .*no picture is left.*caf\\xe9.png"):
        opened(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9", b"caf\xe9/boot"])
def test_a_strangers_folder_whose_name_is_not_utf8_is_named(name, tmp_path):
    place = tmp_path / os.fsdecode(name)
    place.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place / "a.png")
    with pytest.raises(FlagError, match=r"data_dir .*caf\\xe9: the name of this folder is not UTF-8; rename it"):
        opened(tmp_path if name == b"caf\xe9" else place.parent)


def test_a_strangers_links_in_a_circle_are_skipped_as_other_bad_files(folder):
    (folder / "boot/c.png").symlink_to("c.png")
    (folder / "circle").symlink_to("circle")
    images = opened(folder)
    bad = [sample for sample in prefetch(images, range(len(images)), 0) if isinstance(sample, UnreadableImage)]
    assert images.class_names == ("boot", "coat") and [sample.path.name for sample in bad] == ["c.png"]


@pytest.mark.parametrize("labels", [("boot", "coat"), ("0", "1")])
def test_one_file_with_two_labels_of_a_stranger_is_refused_with_both_lines(labels, folder):
    one, other = labels
    (folder / "labels.csv").write_text(f"file,label\nboot/a.png,{one}\nboot/d.png,{one}\n./boot/a.png,{other}\n")
    with pytest.raises(FlagError, match=f"labels.csv, line 4: ./boot/a.png is {other}, and {one} in line 2"):
        opened(folder, "CSV")


def test_one_file_twice_with_one_label_is_what_it_was(folder):
    (folder / "labels.csv").write_text("file,label\nboot/a.png,boot\nboot/a.png,boot\n")
    assert [record.label for record in opened(folder, "CSV").records] == [0, 0]
