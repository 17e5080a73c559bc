"""train_diffusion.py and train_classifier.py, end to end on toy pictures."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

import train_classifier
import train_diffusion
from ace_counterfactuals.core.cli import explain
from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.loading import load_weights
from scripts import fashion_mnist

SIZE = ["--image_size", "32", "--device", "cpu"]
UNET = ["--num_channels", "32", "--channel_mult", "1,1", "--num_res_blocks", "1", "--attention_resolutions", ""]
UNET += ["--learn_sigma", "True", "--diffusion_steps", "50"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve dark and twelve bright squares, a folder each."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 20)):
        (folder / name).mkdir()
        for i in range(12):
            noise = rng.integers(0, 40, (32, 32, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def train_ddpm(pictures, output, *more):
    flags = ["--dataset", "Folder", "--data_dir", str(pictures), "--output_path", str(output), "--batch_size", "4"]
    assert train_diffusion.main([*flags, *SIZE, *UNET, "--save_interval", "2", "--log_interval", "1", *more]) == 0


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A diffusion model after four steps, and a classifier of the squares."""
    folder = tmp_path_factory.mktemp("trained")
    train_ddpm(pictures, folder, "--lr_anneal_steps", "4", "--ema_fp16", "True")
    flags = ["--dataset", "Folder", "--data_dir", str(pictures), "--val_dir", str(pictures), "--arch", "small-4"]
    flags += ["--epochs", "12", "--batch_size", "8", "--lr", "0.01", *SIZE]
    flags += ["--output_path", str(folder / "classifier.pt")]
    assert train_classifier.main(flags) == 0
    return folder


def test_training_writes_checkpoints_samples_and_a_log(trained):
    names = {path.name for path in trained.iterdir()}
    checkpoint = {"model000004.pt", "ema_0.9999_000004.pt", "opt000004.pt", "samples000004.png"}
    assert checkpoint | {"log.csv", "config.yaml", "model000002.pt"} <= names
    assert len((trained / "log.csv").read_text().splitlines()) == 4


def test_a_half_precision_average_is_stored_as_such(trained):
    assert {value.dtype for value in load_weights(trained / "ema_0.9999_000004.pt").values()} == {torch.float16}


def test_a_resumed_training_ends_with_the_same_weights(pictures, trained, tmp_path):
    train_ddpm(pictures, tmp_path / "whole", "--lr_anneal_steps", "4")
    resume = ["--resume_checkpoint", str(tmp_path / "whole/model000002.pt")]
    train_ddpm(pictures, tmp_path / "resumed", "--lr_anneal_steps", "4", *resume)
    whole, resumed = (load_weights(tmp_path / name / "model000004.pt") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_begins_with_given_weights_and_moves_them_little(pictures, trained, tmp_path):
    given = ["--init_weights", str(trained / "ema_0.9999_000004.pt"), "--lr", "1e-6"]
    train_ddpm(pictures, tmp_path / "fitted", "--lr_anneal_steps", "2", *given)
    before, after = load_weights(trained / "ema_0.9999_000004.pt"), load_weights(tmp_path / "fitted/model000002.pt")
    assert 0 < max((before[name].float() - after[name]).abs().max().item() for name in before) < 1e-5


def test_beginning_with_weights_and_continuing_at_once_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="give one of them"):
        train_ddpm(pictures, tmp_path, "--init_weights", "a.pt", "--resume_checkpoint", "model000002.pt")


def test_a_class_conditional_model_is_trained_on_the_labels(pictures, tmp_path):
    train_ddpm(pictures, tmp_path, "--lr_anneal_steps", "2", "--class_cond", "True")
    assert load_weights(tmp_path / "model000002.pt")["label_emb.weight"].shape[0] == 2


def test_the_classifier_learns_the_classes_by_name(pictures, trained):
    classifier = load_classifier(trained / "classifier.pt")
    images = open_dataset("Folder", pictures, image_size=32)
    predicted = classifier(torch.stack([sample.image for sample in images])).argmax(1)
    assert [classifier.class_names[i] for i in predicted] == ["bright"] * 12 + ["dark"] * 12


def test_what_was_trained_explains_with_the_same_flags(pictures, trained, tmp_path):
    flags = ["--dataset", "Folder", "--data_dir", str(pictures), *SIZE, *UNET, "--label_query", "dark"]
    flags += ["--label_target", "bright", "--num_samples", "2", "--attack_iterations", "1"]
    weights = ["--model_path", str(trained / "ema_0.9999_000004.pt")]
    weights += ["--classifier_path", str(trained / "classifier.pt")]
    assert explain.main([*flags, *weights, "--output_path", str(tmp_path), "--exp_name", "x"]) == 0
    assert (tmp_path / "Results/x/sheet.png").exists()


def test_resuming_from_a_file_of_another_name_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="--resume_checkpoint .*modelNNNNNN.pt"):
        train_ddpm(pictures, tmp_path, "--resume_checkpoint", "ema.pt")


def test_fashion_mnist_becomes_padded_pictures_in_class_folders(tmp_path):
    photographs = np.arange(20 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
    labels = np.arange(20, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        header = struct.pack(">4I", 0x803, 20, 28, 28)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + photographs.tobytes()))
        header = struct.pack(">2I", 0x801, 20)
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes()))
    fashion_mnist.write(tmp_path / "out", *fashion_mnist.read(tmp_path, "t10k"), 1)
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 10
    picture = np.asarray(Image.open(tmp_path / "out/trouser/00001.png"))
    assert np.array_equal(picture[2:-2, 2:-2, 0], photographs[1])
    assert picture.sum() == 3 * photographs[1].astype(int).sum()
