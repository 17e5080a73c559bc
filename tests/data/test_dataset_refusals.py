"""A data set that is not as published: one line that names the flag or file, what was wanted and what was found."""

import json
import shutil

import pytest
from PIL import Image

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.datasets import celeba_attributes
from ace_counterfactuals.core.data.imageset import open_dataset
from tests.support.paths import GOLDEN

DATA = GOLDEN / "data"
SMILING = 31


def opened(name, folder, **options):
    return open_dataset(name, folder, image_size=16, **{"label_query": SMILING, **options})


def copied(folder, tmp_path):
    return shutil.copytree(DATA / folder, tmp_path / folder)


def with_line(path, number, line):
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CelebA", "img_align_celeba/, list_attr_celeba.csv, list_eval_partition.csv"),
        ("CelebAMV", "img_align_celeba/, list_attr_celeba.csv"),
        ("CelebAHQ", "CelebA-HQ-img/, CelebAMask-HQ-attribute-anno.txt, CelebA-HQ-to-CelebA-mapping.txt"),
        ("BDD100k", "images/100k/val/"),
        ("BDDOIA", "data/, val_25k_images_actions.json"),
        ("ImageNet", "a folder of pictures a class"),
        ("Folder", "pictures, or a folder of pictures a class"),
        ("CSV", "labels.csv"),
        ("HuggingFace", ".parquet files, or what save_to_disk wrote"),
    ],
)
def test_a_wrong_layout_says_what_was_expected_and_what_was_found(tmp_path, name, expected):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlagError) as caught:
        opened(name, tmp_path, label_query=-1)
    assert caught.value.field == "data_dir" and caught.value.reason.startswith(f"{tmp_path}: wanted {expected}")
    assert "found: empty, notes.txt" in caught.value.reason and name in caught.value.reason


@pytest.mark.parametrize(
    ("data_dir", "fact"), [("", "is empty"), ("nowhere", "no such folder"), (__file__, "not a folder")]
)
def test_a_data_dir_that_is_no_folder_is_told_from_an_empty_one(data_dir, fact):
    with pytest.raises(FlagError, match=f"data_dir .*{fact}"):
        opened("Folder", data_dir)


def test_an_unknown_data_set_suggests_one():
    with pytest.raises(ValueError, match="dataset celebahq: .*did you mean CelebAHQ?"):
        opened("celebahq", DATA / "celebahq")


@pytest.mark.parametrize(
    ("file", "number", "line"),
    [
        ("list_attr_celeba.csv", 1, "000001.jpg" + ",1" * 40),
        ("list_attr_celeba.csv", 3, "000002.jpg" + ",1" * 39),
        ("list_attr_celeba.csv", 210, "000209.jpg" + ",1" * 39 + ",x"),
        ("list_eval_partition.csv", 7, "000006.jpg,3"),
        ("list_eval_partition.csv", 2, "000001.jpg"),
        ("list_eval_partition.csv", 9, "\x00\x01garbage"),
    ],
)
def test_a_line_of_celeba_that_does_not_parse_is_named(tmp_path, file, number, line):
    folder = copied("celeba", tmp_path)
    with_line(folder / file, number, line)
    with pytest.raises(ValueError, match=f"{file}, line {number}: wanted .*, found '"):
        opened("CelebA", folder)


@pytest.mark.parametrize(
    ("file", "number", "line"),
    [
        ("CelebAMask-HQ-attribute-anno.txt", 2, "Smiling Young"),
        ("CelebAMask-HQ-attribute-anno.txt", 5, "2.jpg 1 -1"),
        ("CelebA-HQ-to-CelebA-mapping.txt", 4, "2 1002"),
    ],
)
def test_a_line_of_celebahq_that_does_not_parse_is_named(tmp_path, file, number, line):
    folder = copied("celebahq", tmp_path)
    with_line(folder / file, number, line)
    with pytest.raises(ValueError, match=f"{file}, line {number}: wanted "):
        opened("CelebAHQ", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [],\n "annotations" []}', r"actions.json: is not JSON .*line 2"),
        ('{"images": []}', r"actions.json: wanted .*'annotations'"),
        ("[1, 2]", r"actions.json: wanted "),
        ('{"images": [], "annotations": [{"category": [1, 0, 2, 0]}]}', r"annotations\[0\]: wanted a category"),
        ('{"images": [], "annotations": [{"category": [[], 0, 1, 0]}]}', r"annotations\[0\]: wanted a category"),
        ('{"images": [{"file_name": "a.jpg", "id": 1}], "annotations": []}', "a.jpg has id 1, but there are 0"),
    ],
)
def test_actions_that_do_not_parse_are_named(tmp_path, content, message):
    folder = copied("bddoia", tmp_path)
    (folder / "val_25k_images_actions.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        opened("BDDOIA", folder, label_query=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "csv_image file: no such column: .*labels.csv has no columns"),
        ("name,class\nx.png,1\n", "csv_image file: no such column: .*labels.csv has name, class"),
        ("file,lable\nx.png,1\n", "csv_label label: no such column: .*did you mean lable?"),
        ("file,label\nx.png,1\n\ny.png\n", "line 4: wanted values for file, label, found 'y.png'"),
        ("file,label\nx.png,\n", "line 2: wanted values"),
        ("file,label\na,b.png,1\n", "line 2: wanted values"),
        ("file,label\nx.png,-2\n", "line 2: wanted a label of -1"),
        ("file,label\nx.png,9" + "9" * 5000, "line 2: wanted a label of -1"),
        ("file,label\n", "none of the 0 pictures"),
        ("file,label\nx.png,1\n", "none of the 1 pictures of labels.csv, such as x.png"),
    ],
)
def test_a_csv_that_does_not_parse_is_named(tmp_path, content, message):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        opened("CSV", tmp_path)


@pytest.mark.parametrize(
    ("query", "hint"), [("Smilling", "did you mean Smiling?"), (40, "39 Young"), (-1, "31 Smiling")]
)
def test_an_attribute_outside_celeba_lists_the_valid_ones(query, hint):
    with pytest.raises(ValueError, match=f"label_query .*{hint}"):
        opened("CelebA", DATA / "celeba", label_query=query)


def test_celebahq_has_three_attributes_to_explain():
    with pytest.raises(ValueError, match="label_query 5: .*20 Male, 31 Smiling, 39 Young"):
        opened("CelebAHQ", DATA / "celebahq", label_query=5)


@pytest.mark.parametrize("name", ["BDD100k", "BDDOIA"])
def test_bdd_has_four_actions(name):
    with pytest.raises(ValueError, match="label_query 4: .*0 forward, 1 slow_down, 2 left, 3 right"):
        opened(name, DATA / name.lower(), label_query=4)


def test_annotations_without_any_of_their_pictures_are_refused(tmp_path):
    folder = copied("celeba", tmp_path)
    shutil.rmtree(folder / "img_align_celeba")
    (folder / "img_align_celeba/img_align_celeba").mkdir(parents=True)
    with pytest.raises(ValueError, match="none of the 12 pictures .*000201.jpg.*found: img_align_celeba"):
        opened("CelebA", folder)


def test_annotated_pictures_without_a_partition_are_counted(tmp_path):
    folder = copied("celeba", tmp_path)
    partition = folder / "list_eval_partition.csv"
    lines = partition.read_text().splitlines()
    partition.write_text("\n".join(line for line in lines if not line.startswith(("000205", "000206"))))
    images = opened("CelebA", folder)
    assert len(images) == 10
    assert images.notices == ("2 annotated pictures are in no partition and left out: 000205.jpg, 000206.jpg",)


def test_missing_pictures_are_counted_and_the_first_three_named(tmp_path):
    folder = copied("bddoia", tmp_path)
    listed = json.loads((folder / "val_25k_images_actions.json").read_text())
    for number in range(5):
        listed["images"].append({"file_name": f"z{number}.jpg", "id": 0})
    (folder / "val_25k_images_actions.json").write_text(json.dumps(listed))
    notice = opened("BDDOIA", folder, label_query=0).notices[0]
    assert notice.startswith("5 of the 10 pictures") and "z0.jpg, z1.jpg, z2.jpg, ..." in notice


def test_class_folders_without_pictures_keep_their_label_and_are_pointed_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "b/x.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "loose.png")
    images = opened("Folder", tmp_path)
    assert images[0].label == 1
    assert images.notices == (
        "1 of 2 class folders have no picture: a",
        "1 pictures beside the class folders are left out: loose.png",
    )


def test_a_table_of_attributes_names_its_folder(tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path}: .*list_attr_celeba.csv"):
        celeba_attributes(tmp_path)
