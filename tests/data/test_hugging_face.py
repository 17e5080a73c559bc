"""Data sets of Hugging Face on disk, laid out as datasets 5.2 writes them: parquet, and what save_to_disk leaves."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.imageset import open_dataset, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage
from tests.support.toys import CLASSES, Workshop

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FEATURES = {"image": {"_type": "Image"}, "label": {"names": [*CLASSES], "_type": "ClassLabel"}}


def picture(level):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 2, 3)).save(stream, "PNG")
    return stream.getvalue()


def table(count=5, labels=None, cells=None):
    cells = cells or [{"bytes": picture(10 * i), "path": f"{i}.png"} for i in range(count)]
    columns = {
        "image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "label": labels or [i % 3 for i in range(count)],
        "kind": ["b", "a", "b", None, "c"][:count],
    }
    said = json.dumps({"info": {"features": FEATURES}})
    return pa.table(columns).replace_schema_metadata({"huggingface": said})


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=2)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, content.schema) as stream:
            stream.write_table(content, max_chunksize=2)
    return path


def opened(folder, **settings):
    return open_dataset("HuggingFace", folder, image_size=8, **settings)


LAYOUTS = {
    "parquet": ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
    "one parquet": ("mine.parquet", None),
    "save_to_disk": ("data-00000-of-00002.arrow", "data-00001-of-00002.arrow"),
    "a split of save_to_disk": ("train/data-00000-of-00001.arrow", None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_labels_and_names_are_read(tmp_path, layout):
    files = [write(tmp_path / name, table()) for name in LAYOUTS[layout] if name]
    (tmp_path / "cache-00001.arrow").write_bytes(b"no table")
    images = opened(tmp_path)
    assert images.class_names == CLASSES and len(images) == 5 * len(files)
    samples = [*prefetch(images, range(len(images)), 2)]
    assert [sample.label for sample in samples] == [0, 1, 2, 0, 1] * len(files)
    assert [round(255 * sample.image[0].max().item()) for sample in samples] == [0, 10, 20, 30, 40] * len(files)
    assert samples[3].path == files[0] / "0000003"


def test_of_several_splits_one_is_named(tmp_path):
    for split, count in (("train", 5), ("test", 2)):
        write(tmp_path / f"data/{split}-00000-of-00001.parquet", table(count))
    assert len(opened(tmp_path, csv_split="split=test")) == 2
    for typed, fact in (("", "split=test, split=train; give one"), ("split=tset", "did you mean test?")):
        with pytest.raises(FlagError, match=f"csv_split .*{fact}".replace("?", ".")):
            opened(tmp_path, csv_split=typed)


def test_labels_may_be_names_or_unknown_or_none(tmp_path):
    write(tmp_path / "mine.parquet", table())
    images = opened(tmp_path, csv_label="kind")
    assert images.class_names == ("a", "b", "c") and [r.label for r in images.records] == [1, 0, 1, -1, 2]
    assert {record.label for record in opened(tmp_path, csv_label="").records} == {-1}


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ({"csv_label": "lable"}, "csv_label lable: no such column: .*image, label, kind; did you mean label"),
        ({"csv_image": "img"}, "csv_image img: no such column: .*did you mean image"),
        ({"csv_label": "image"}, "data_dir .*column image: wanted classes .*or names"),
    ],
)
def test_columns_that_there_are_not_are_named(tmp_path, settings, fact):
    write(tmp_path / "mine.parquet", table())
    with pytest.raises(FlagError, match=fact):
        opened(tmp_path, **settings)


def test_a_label_outside_the_named_classes_is_refused(tmp_path):
    write(tmp_path / "mine.parquet", table(labels=[0, 1, 2, 3, 0]))
    with pytest.raises(FlagError, match=r"column label: wanted classes of -1 \(unknown\) to 2, or names, found 3"):
        opened(tmp_path)


def test_a_path_in_a_strangers_table_is_not_followed(tmp_path):
    (tmp_path / "own.png").write_bytes(picture(9))
    write(tmp_path / "mine.parquet", table(1, cells=[{"bytes": None, "path": str(tmp_path / "own.png")}]))
    with pytest.raises(UnreadableImage, match="has no bytes of this picture"):
        opened(tmp_path)[0]


@pytest.mark.parametrize("name", ["mine.parquet", "data-00000-of-00001.arrow"])
def test_a_strangers_table_that_is_cut_short_is_one_line_with_the_file(tmp_path, name):
    path = write(tmp_path / name, table())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FlagError, match=f"data_dir .*{name}: cannot be read"):
        opened(tmp_path)


def test_a_strangers_picture_that_stands_a_hundred_times_in_a_table_is_kept_once(tmp_path):
    noise = np.random.default_rng(0).bytes(500_000)
    cells = pa.StructArray.from_arrays([pa.array([noise] * 100)], names=["bytes"])
    repeated = pa.table({"image": cells, "label": [0] * 100})
    pq.write_table(repeated, tmp_path / "mine.parquet", dictionary_pagesize_limit=2**24)
    before = pa.total_allocated_bytes()
    images = opened(tmp_path)
    assert len(images.content(images.records[99].path)) == len(noise)
    assert pa.total_allocated_bytes() - before < 10 * len(noise)


def test_a_strangers_table_whose_pictures_end_before_they_begin_is_refused(tmp_path):
    path = write(tmp_path / "data-00000-of-00001.arrow", table(2))
    first, second = len(picture(0)), len(picture(10))
    ends = np.array([0, first, first + second], "<i4").tobytes()
    assert path.read_bytes().count(ends) == 1
    path.write_bytes(path.read_bytes().replace(ends, np.array([0, -5, first + second], "<i4").tobytes()))
    with pytest.raises(UnreadableImage, match="cannot be read"):
        opened(tmp_path)[1]


def test_without_pyarrow_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    write(tmp_path / "mine.parquet", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FlagError, match="pip install pyarrow"):
        opened(tmp_path)


def test_a_parquet_folder_is_explained(tmp_path):
    shop, rng = Workshop(tmp_path), np.random.default_rng(0)
    cells = []
    for _ in range(3):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    write(tmp_path / "hub/mine.parquet", table(3, cells=cells))
    assert shop.run(dataset="HuggingFace", data_dir=tmp_path / "hub", label_query="coat", label_target="boot") == 0
    assert "mine.parquet/0000001" in (shop.results() / "results.csv").read_text()
    assert shop.run(dataset="HuggingFace", data_dir=tmp_path / "hub", label_query="coat", label_target="boot") == 0
