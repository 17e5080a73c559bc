"""A data set that a user's module adds: one entry and its reader, and every program takes it."""

import pytest
import yaml

from ace_counterfactuals.core.base.settings import describe_range, flag_items
from ace_counterfactuals.core.cli import train_classifier, train_diffusion
from ace_counterfactuals.core.data.datasets import DATASETS
from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.core.data.pictures import decode
from ace_counterfactuals.core.data.specs import DatasetSpec, Listing, PictureFile
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.toys import CLASSES, Workshop


def read(folder, query, train):
    """Pictures whose name begins with their label: 2-005.png."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise ValueError(f"{folder}: wanted pictures named LABEL-NUMBER.png")
    records = [PictureFile(i, file, int(file.name[0])) for i, file in enumerate(files)]
    return Listing(records=records, class_names=CLASSES)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "Shop", DatasetSpec(read))
    shop = Workshop(tmp_path)
    for label, name in enumerate(CLASSES):
        for file in (shop.data / name).iterdir():
            file.rename(shop.data / f"{label}-{file.name}")
    return shop


def test_it_is_opened_and_offered(shop):
    images = open_dataset("Shop", shop.data, image_size=8)
    assert [sample.label for sample in images] == [0, 0, 1, 1, 2, 2] and images[0].image.shape == (3, 8, 8)
    assert "Shop" in describe_range(flag_items(MainConfig)["dataset"])


def test_it_is_explained(shop):
    assert shop.run(dataset="Shop", label_query="coat", label_target="boot", attack_iterations=1) == 0
    assert yaml.safe_load((shop.results() / "summary.yaml").read_text())["n"] == 2


def test_what_its_reader_refuses_names_the_setting(shop, tmp_path, capsys):
    assert shop.exit_code(dataset="Shop", data_dir=shop.data / "boot") == 2
    assert "--data_dir" in (said := capsys.readouterr().err) and "LABEL-NUMBER.png" in said


def test_it_is_trained_on(shop, tmp_path):
    where = ["--dataset", "Shop", "--data_dir", str(shop.data), "--image_size", "8", "--device", "cpu"]
    written = tmp_path / "own.pt"
    assert train_classifier.main([*where, "--arch", "small-4", "--epochs", "1", "--output_path", str(written)]) == 0
    unet = ["--num_channels", "32", "--channel_mult", "1", "--num_res_blocks", "1", "--attention_resolutions", ""]
    steps = ["--diffusion_steps", "21", "--lr_anneal_steps", "1", "--output_path", str(tmp_path / "ddpm")]
    assert train_diffusion.main([*where, *unet, *steps]) == 0
    assert written.exists() and decode(tmp_path / "ddpm/samples000001.png").size == (82, 42)
