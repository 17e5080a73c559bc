"""train_classifier.py --arch takes what --classifier names, and its file is used by either."""

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import train_classifier
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.config import ClassifierConfig
from ace_counterfactuals.models.specs import said_of
from tests.support.toys import write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("classes"), count=3, size=(32, 32))


def trained(folder, file, arch, size=32):
    flags = {"dataset": "Folder", "data_dir": folder, "image_size": size, "arch": arch, "epochs": 1, "device": "cpu"}
    flags |= {"batch_size": 3, "output_path": file}
    assert train_classifier.main([word for name, value in flags.items() for word in (f"--{name}", str(value))]) == 0


def opened(**flags):
    config = ClassifierConfig(**flags)
    return load_classifier(config.classifier_path, arch=said_of(config, 32))


@pytest.mark.parametrize("arch", ["torchvision:squeezenet1_1", "timm:test_resnet", "timm:test_vit_relpos"])
def test_the_file_is_used_with_its_name_and_alone(folder, tmp_path, arch):
    size = 160 if "vit" in arch else 32  # with buffers that are in no file
    file, images = str(tmp_path / "w.pt"), torch.rand(2, 3, size, size)
    if "timm" in arch:
        pytest.importorskip("timm")
    trained(folder, file, arch, size)
    alone, named = opened(classifier=file), opened(classifier=arch, classifier_path=file)
    assert alone.class_names == named.class_names == ("boot", "coat", "shirt") and alone.image_size == size
    assert torch.equal(alone(images), named(images)) and alone(images).isfinite().all()


def test_a_name_against_what_the_file_says_is_refused(folder, tmp_path):
    file = str(tmp_path / "w.pt")
    trained(folder, file, "small-4")
    for name in ("torchvision:resnet18", "timm:test_resnet"):
        with pytest.raises(ValueError, match="w.pt: is a small-4, as it says, and no "):
            opened(classifier=name, classifier_path=file)


@pytest.mark.parametrize(
    ("arch", "field", "said"),
    [
        ("torchvision:resnet81", "arch", "near it: resnet"),
        ("timm:test_resnte", "arch", "did you mean test_resnet"),
        ("timm:hf_hub:some/where", "arch", "no such network"),
        ("torchvision:alexnet", "image_size", "torchvision:alexnet does not take such pictures"),
    ],
)
def test_what_cannot_be_trained_is_told_before(folder, tmp_path, arch, field, said):
    with pytest.raises(FlagError) as caught:
        trained(folder, tmp_path / "w.pt", arch)
    assert caught.value.field == field and said in caught.value.reason
