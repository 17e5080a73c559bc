"""A table of pictures and labels: any columns, a split, classes or attributes."""

import csv

import pytest
from PIL import Image

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli.refine import main as refine
from ace_counterfactuals.core.data.config import DataConfig
from ace_counterfactuals.core.data.imageset import open_dataset, open_pictures
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from tests.support.toys import Workshop, write_classifier

TABLE = """id,path,kind,smiling,young,part
1,a.png,dog,1,no,train
2,b.png,cat,-1,Yes,test
3,sub/c.png,dog,0,yes,test
4,d.png,ant,1,no,train
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png", "d.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "faces.csv").write_text(TABLE)
    return tmp_path


def opened(folder, **settings):
    config = DataConfig(
        dataset="CSV", data_dir=str(folder), image_size=8, **{"csv_file": "faces.csv", "csv_image": "path", **settings}
    )
    return open_pictures(config, label_query=config.label_query)


def labels(images):
    return {record.path.stem: record.label for record in images.records}


def test_any_column_may_hold_the_classes(folder):
    images = opened(folder, csv_label="kind")
    assert labels(images) == {"a": 2, "b": 1, "c": 2, "d": 0} and images.class_names == ("ant", "cat", "dog")


def test_a_csv_split_takes_its_rows_and_numbers_the_classes_of_the_whole_table(folder):
    images = opened(folder, csv_label="kind", csv_split="part=test")
    assert labels(images) == {"b": 1, "c": 2} and images.class_names == ("ant", "cat", "dog")
    assert [record.index for record in images.records] == [0, 1]


def test_a_csv_without_labels_has_pictures_of_unknown_label(folder):
    assert set(labels(opened(folder, csv_label="")).values()) == {-1}


@pytest.mark.parametrize(("query", "expected"), [("smiling", [1, 0, 0, 1]), (1, [0, 1, 1, 0])])
def test_several_columns_are_attributes_of_which_the_query_names_one(folder, query, expected):
    images = opened(folder, csv_label="smiling, young", label_query=query)
    assert images.binary and [*labels(images).values()] == expected
    assert images.class_names == ((f"not {query}", query) if query == "smiling" else ("not young", "young"))


def test_one_column_is_an_attribute_where_the_query_names_it(folder):
    assert opened(folder, csv_label="smiling", label_query="smiling").binary
    assert not opened(folder, csv_label="kind", label_query="dog").binary


def test_csv_attributes_need_a_query_to_be_explained_and_none_to_be_trained_on(folder):
    with pytest.raises(FlagError, match="label_query -1: .*0 smiling, 1 young"):
        opened(folder, csv_label="smiling,young")
    about = {"csv_file": "faces.csv", "csv_image": "path", "csv_label": "smiling,young", "image_size": 8}
    assert set(labels(open_dataset("CSV", folder, split="train", **about)).values()) == {-1}


@pytest.mark.parametrize(
    ("settings", "field", "fact"),
    [
        ({"csv_image": "pth"}, "csv_image", "pth: no such column: .*faces.csv has id, path.*did you mean path?"),
        ({"csv_label": "smiling,yung", "label_query": 0}, "csv_label", "yung: .*did you mean young?"),
        ({"csv_label": "kind", "csv_split": "prt=test"}, "csv_split", "prt: .*did you mean part?"),
        (
            {"csv_label": "kind", "csv_split": "part=tset"},
            "csv_split",
            "part=tset: .*did you mean test.; there are test, train",
        ),
        ({"csv_label": "kind", "csv_split": "test"}, "csv_split", "test: wanted COLUMN=VALUE"),
        (
            {"csv_label": "kind,young", "label_query": 0},
            "data_dir",
            "faces.csv, line 2: wanted attributes of 1, 0.*dog",
        ),
        ({"csv_file": "labels.csv"}, "data_dir", "wanted labels.csv there; found: .*faces.csv"),
    ],
)
def test_what_a_csv_does_not_have_is_named(folder, settings, field, fact):
    with pytest.raises(FlagError, match=fact) as caught:
        opened(folder, **settings)
    assert caught.value.field == field


def test_pictures_that_a_csv_names_and_are_missing_are_named(folder):
    (folder / "b.png").unlink()
    assert "1 of the 4 pictures of faces.csv are missing" in opened(folder, csv_label="kind").notices[0]


def test_training_takes_the_columns_too():
    assert TrainDiffusionConfig().pictures.csv_split == ""


def test_an_attribute_of_a_csv_is_explained_and_refined_by_the_same_flags(tmp_path):
    shop = Workshop(tmp_path)
    files = sorted(path.relative_to(shop.data) for path in shop.data.rglob("*.png"))
    rows = [f"{file},{i % 2},{i // 3}" for i, file in enumerate(files)]
    (shop.data / "labels.csv").write_text("\n".join(["file,smiling,young", *rows]))
    write_classifier(shop.classifier, ("no", "yes"))
    about = {"dataset": "CSV", "csv_label": "smiling,young", "label_query": "young", "label_target": 0}
    assert shop.run(**about) == 0
    table = [*csv.DictReader((shop.results() / "results.csv").read_text().splitlines())]
    assert [row["file"] for row in table] == [str(file) for file in files[3:]]
    assert {row["label"] for row in table} == {"1"}
    words = [word for name, value in {**about, "label_query": 1}.items() for word in (f"--{name}", str(value))]
    where = ["--output_path", str(shop.output), "--sampling_dilation", "1", "--device", "cpu"]
    assert refine([*where, *words]) == 0
