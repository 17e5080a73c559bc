"""Pictures without labels, of a flat folder or named one by one: what the classifier predicts counts."""

import json
import shutil

import pytest
import torch

from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import load_classifier, save_classifier
from tests.support.toys import CLASSES, SIDE, Workshop, randomised


@pytest.fixture
def shop(tmp_path):
    """Whose pictures lie in one folder."""
    shop = Workshop(tmp_path)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in shop.data.rglob("*.png"):
        shutil.copy(file, flat / file.name)
    shop.labelled, shop.data = shop.data, flat
    images = torch.stack([sample.image for sample in open_dataset("Folder", flat, image_size=SIDE)])
    undecided(shop.classifier, (images - 0.5) / 0.2)
    return shop


def undecided(file, images):
    """A classifier that gives different answers to these."""
    network = randomised(build_classifier("small-4", 3), seed=2)
    [*network.parameters()][-1].data -= network(images).mean(0)
    about = {"arch": "small-4", "class_names": CLASSES, "mean": [0.5] * 3, "std": [0.2] * 3, "image_size": SIDE}
    save_classifier(file, network, **about)


def predictions(shop):
    images = open_dataset("Folder", shop.data, image_size=SIDE)
    logits = load_classifier(shop.classifier)(torch.stack([sample.image for sample in images]))
    return {sample.path.name: label for sample, label in zip(images, predict(logits).tolist(), strict=True)}


def records(shop, exp_name="exp"):
    return [json.loads(path.read_text()) for path in sorted((shop.results(exp_name) / "records").glob("*.json"))]


def explained(shop, exp_name="exp"):
    return {record["file"] for record in records(shop, exp_name)}


def test_in_a_flat_folder_a_class_is_selected_by_prediction(shop):
    predicted = predictions(shop)
    assert len({*predicted.values()}) > 1
    start = max(predicted.values(), key=[*predicted.values()].count)
    query, target = CLASSES[start], CLASSES[start - 1]
    assert shop.run(label_query=query, label_target=target) == 0
    assert explained(shop) == {name for name, label in predicted.items() if label == start}
    assert {record["prediction"] for record in records(shop)} == {start}


def test_chunks_of_predicted_pictures_merge_as_one_run(shop):
    start = [*predictions(shop).values()][0]
    flags = {"label_query": start, "label_target": (start + 1) % 3}
    assert shop.run(**flags) == 0
    for chunk in {record["index"] % 2 for record in records(shop)}:
        assert shop.run(**flags, exp_name="parts", chunks=2, chunk=chunk) == 0
    assert shop.run(**flags, exp_name="parts", chunks=2, merge_chunks=True) == 0
    assert explained(shop) == explained(shop, "parts") and (shop.results("parts") / "results.csv").exists()


def test_a_query_without_a_target_selects_its_class(shop):
    assert shop.run(data_dir=shop.labelled, label_query="coat") == 0
    assert {record["label"] for record in records(shop)} == {1} and len(records(shop)) == 2


def test_without_a_query_all_are_explained_and_no_label_is_known(shop):
    assert shop.run() == 0
    assert [record["label"] for record in records(shop)] == [-1] * 6


def test_files_are_explained_without_a_data_set(shop):
    files = [str(shop.data / "003.png"), str(shop.data / "001.png")]
    words = [*shop.arguments(dataset=None, data_dir=None), "--image", *files]
    assert main(words) == 0
    assert [record["file"] for record in records(shop)] == ["003.png", "001.png"]
    assert main([*words, "--exp_name", "checked", "--check", "True"]) in (0, 1)


@pytest.mark.parametrize("name", ["nowhere.png", "notes.txt"])
def test_a_file_that_is_no_picture_is_refused_before_anything_is_loaded(shop, name, capsys):
    (shop.data / "notes.txt").write_text("no picture")
    assert shop.exit_code(image=shop.data / name, model_path="nowhere") == 2
    assert f"--image {shop.data / name}: unreadable picture" in capsys.readouterr().err


def test_a_folder_in_place_of_a_file_is_refused_with_the_remedy(shop, capsys):
    assert shop.exit_code(image=shop.data) == 2
    assert f"--image {shop.data}: is a folder; give it as data_dir" in capsys.readouterr().err


def test_files_of_a_binary_set_take_the_attributes_number(shop, capsys):
    assert shop.exit_code(image=shop.data / "001.png", dataset="CelebA", label_query="Smiling") == 2
    assert "--label_query Smiling: no label of image; choose an index" in capsys.readouterr().err
