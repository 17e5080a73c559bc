"""train_diffusion.py and train_classifier.py, end to end on toy pictures."""

import gzip
import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import explain, train_classifier, train_diffusion
from ace_counterfactuals.core.data.imageset import open_dataset
from ace_counterfactuals.core.data.pictures import decode
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.loading import load_weights
from scripts import fashion_mnist
from tests.support.paths import GOLDEN

SIZE = ["--image_size", "8", "--device", "cpu"]
UNET = ["--num_channels", "32", "--channel_mult", "1,1", "--num_res_blocks", "1", "--attention_resolutions", ""]
UNET += ["--learn_sigma", "True", "--diffusion_steps", "21"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve dark and twelve bright squares, a folder each."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 20)):
        (folder / name).mkdir()
        for i in range(12):
            noise = rng.integers(0, 40, (8, 8, 3))
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
    assert len((trained / "log.csv").read_text().splitlines()) == 5  # with the names of its columns


def test_a_half_precision_average_is_stored_as_such(trained):
    assert {value.dtype for value in load_weights(trained / "ema_0.9999_000004.pt").values()} == {torch.float16}


def test_stored_weights_lie_in_the_order_of_their_dimensions(trained):
    for name in ("model000004.pt", "ema_0.9999_000004.pt"):
        assert all(value.is_contiguous() for value in load_weights(trained / name).values())


def test_a_resumed_training_ends_with_the_same_weights(pictures, trained, tmp_path):
    resume = ["--resume_checkpoint", str(trained / "model000002.pt")]
    train_ddpm(pictures, tmp_path, "--lr_anneal_steps", "4", *resume)
    whole, resumed = (load_weights(folder / "model000004.pt") for folder in (trained, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_begins_with_given_weights_and_moves_them_little(pictures, trained, tmp_path):
    given = ["--init_weights", str(trained / "ema_0.9999_000004.pt"), "--lr", "1e-6"]
    train_ddpm(pictures, tmp_path / "fitted", "--lr_anneal_steps", "2", *given)
    before, after = load_weights(trained / "ema_0.9999_000004.pt"), load_weights(tmp_path / "fitted/model000002.pt")
    assert 0 < max((before[name].float() - after[name]).abs().max().item() for name in before) < 1e-5


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--init_weights", "a.pt", "--resume_checkpoint", "model000002.pt"], "init_weights"),
        (["--resume_checkpoint", "ema.pt"], "resume_checkpoint"),
        (["--class_cond", "True"], "class_cond"),
    ],
)
def test_what_cannot_be_trained_is_refused(pictures, tmp_path, flags, field):
    loose = pictures / "dark"
    with pytest.raises(FlagError) as caught:
        train_ddpm(loose if field == "class_cond" else pictures, tmp_path, *flags)
    assert caught.value.field == field


@pytest.mark.parametrize("flag", ["--resume_checkpoint", "--init_weights"])
def test_weights_of_another_network_are_answered_with_their_flags(pictures, trained, tmp_path, flag):
    with pytest.raises(FlagError) as caught:
        train_ddpm(pictures, tmp_path, flag, str(trained / "model000002.pt"), "--num_channels", "64")
    assert caught.value.field == "num_channels" and "has 32" in caught.value.reason


def test_a_classifiers_file_is_refused_as_weights_to_begin_with(pictures, trained, tmp_path):
    with pytest.raises(FlagError) as caught:
        train_ddpm(pictures, tmp_path, "--init_weights", str(trained / "classifier.pt"))
    assert caught.value.field == "init_weights" and "no diffusion U-Net" in caught.value.reason


def test_continuing_without_the_other_files_of_a_checkpoint_is_refused(pictures, trained, tmp_path):
    shutil.copy(trained / "model000002.pt", tmp_path)
    with pytest.raises(FlagError) as caught:
        train_ddpm(pictures, tmp_path / "out", "--resume_checkpoint", str(tmp_path / "model000002.pt"))
    assert caught.value.field == "resume_checkpoint" and "ema_0.9999_000002.pt" in caught.value.reason


def test_pictures_none_of_which_can_be_read_are_refused(tmp_path):
    for name in ("bright", "dark"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"torn")
    with pytest.raises(ValueError, match="no picture"):
        train_classifier.main(["--data_dir", str(tmp_path), "--output_path", str(tmp_path / "c.pt"), *SIZE])


def test_a_folder_with_checkpoints_is_not_written_over(pictures, trained):
    with pytest.raises(FlagError, match="has checkpoints") as caught:
        train_ddpm(pictures, trained)
    assert caught.value.field == "output_path"


def test_driving_scenes_are_sampled_as_wide_as_they_are(tmp_path):
    data = shutil.copytree(GOLDEN / "data/bddoia", tmp_path / "bddoia")
    (data / "val_25k_images_actions.json").rename(data / "train_25k_images_actions.json")
    train_ddpm(data, tmp_path / "out", "--dataset", "BDDOIA", "--lr_anneal_steps", "1")
    assert decode(tmp_path / "out/samples000001.png").size == (2 + 8 * (16 + 2), 2 + 4 * (8 + 2))


def test_a_class_conditional_model_is_trained_on_the_labels(pictures, tmp_path):
    train_ddpm(pictures, tmp_path, "--lr_anneal_steps", "2", "--class_cond", "True")
    assert load_weights(tmp_path / "model000002.pt")["label_emb.weight"].shape[0] == 2


def test_a_classifier_is_written_into_a_folder_that_is_made_for_it(pictures, tmp_path):
    file = tmp_path / "made/for/it/classifier.pt"
    flags = ["--dataset", "Folder", "--data_dir", str(pictures), "--arch", "small-4", "--epochs", "1", *SIZE]
    assert train_classifier.main([*flags, "--output_path", str(file)]) == 0
    assert load_classifier(file).class_names == ("bright", "dark")


def test_the_classifier_learns_the_classes_by_name(pictures, trained):
    classifier = load_classifier(trained / "classifier.pt")
    images = open_dataset("Folder", pictures, image_size=8)
    predicted = classifier(torch.stack([sample.image for sample in images])).argmax(1)
    assert [classifier.class_names[i] for i in predicted] == ["bright"] * 12 + ["dark"] * 12


def test_what_was_trained_explains_with_the_same_flags(pictures, trained, tmp_path):
    flags = ["--dataset", "Folder", "--data_dir", str(pictures), *SIZE, *UNET, "--label_query", "dark"]
    flags += ["--label_target", "bright", "--num_samples", "2", "--attack_iterations", "1"]
    weights = ["--model_path", str(trained / "ema_0.9999_000004.pt")]
    weights += ["--classifier_path", str(trained / "classifier.pt")]
    assert explain.main([*flags, *weights, "--output_path", str(tmp_path), "--exp_name", "x"]) == 0
    assert (tmp_path / "Results/x/sheet.png").exists()


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
    picture = np.asarray(decode(tmp_path / "out/trouser/00001.png"))
    assert np.array_equal(picture[2:-2, 2:-2, 0], photographs[1])
    assert picture.sum() == 3 * photographs[1].astype(int).sum()
