"""Classifiers: equal to the recorded logits, whole after a round trip, and clear about the wrong file."""

import json
import re

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.models import classifiers
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import load_classifier, save_classifier
from ace_counterfactuals.models.loading import WeightsError, load_weights, save_weights, state_dict
from tests.support.paths import GOLDEN

CASES = GOLDEN / "cases"
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def dive(golden_weights):
    return load_classifier(golden_weights("dive.pth"), query=31, **spec_of("CelebA").classifier())


def save_toy(path, names=("cat", "dog", "eel"), **header):
    network = build_classifier("small-4", len(names)).eval()
    save_classifier(path, network, **{"arch": "small-4", "class_names": names, **HALF, "image_size": 32} | header)
    return network


# The recorded classifiers


@pytest.mark.parametrize(
    "case, file, dataset",
    [("celeba_none", "dive.pth", "CelebA"), ("celebahq_joint_det", "steex_hq.tar", "CelebAHQ")],
)
def test_logits_equal_the_recorded_ones(golden_weights, case, file, dataset):
    classifier = load_classifier(golden_weights(file), query=31, **spec_of(dataset).classifier())
    images = torch.from_numpy(np.load(CASES / case / "x.npy")).float() / 255
    recorded = [logits["clean"] for logits in json.loads((CASES / case / "info.json").read_text())["logits"]]
    assert classifier(images).tolist() == pytest.approx(recorded, abs=2e-4)  # other kernels: up to 3e-5


def test_a_published_file_saved_as_safetensors_is_the_same_classifier(golden_weights, dive, tmp_path):
    flat = state_dict(load_weights(golden_weights("dive.pth")))
    (tmp_path / "dive.safetensors").write_bytes(safetensors.torch.save(flat))
    again = load_classifier(tmp_path / "dive.safetensors", query=31, **spec_of("CelebAMV").classifier())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(image), dive(image))


@pytest.mark.parametrize(
    "dataset, file, query, logit", [("CelebAHQ", "steex_hq.tar", 39, 2), ("BDDOIA", "steex_bdd.tar", 3, 3)]
)
def test_the_query_chooses_the_logit(golden_weights, dataset, file, query, logit):
    classifier = load_classifier(golden_weights(file), query=query, **spec_of(dataset).classifier())
    image = torch.rand(2, 3, 64, 64)
    assert classifier.binary and classifier.num_outputs == 1
    assert torch.equal(classifier(image), classifier.network(2 * (image - 0.5))[:, logit])


def test_a_loaded_classifier_is_frozen_and_in_eval_mode(dive):
    assert not dive.training and not any(p.requires_grad for p in dive.parameters())


def test_the_gradient_reaches_the_image_and_agrees_with_differences_in_float64(golden_weights):
    classifier = load_classifier(golden_weights("dive.pth"), query=20, **spec_of("CelebA").classifier()).double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(classifier(image).sum(), image)
    direction, step = torch.randn_like(image), 1e-7
    with torch.no_grad():
        difference = (classifier(image + step * direction) - classifier(image - step * direction)) / (2 * step)
    assert difference.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


def test_normalisation_follows_the_device_and_type_but_is_no_weight(tmp_path):
    save_toy(tmp_path / "toy.pt")
    classifier = load_classifier(tmp_path / "toy.pt")
    assert not {"mean", "std"} & set(classifier.state_dict())
    assert classifier.double().mean.dtype == torch.float64
    assert classifier.to("meta").std.device.type == "meta"


def test_loading_draws_no_random_numbers_of_the_program(tmp_path):
    save_toy(tmp_path / "toy.pt")
    before = torch.get_rng_state()
    load_classifier(tmp_path / "toy.pt")
    assert torch.equal(before, torch.get_rng_state())


# torchvision's


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "regnet_y_400mf", "mnasnet0_5"])
def test_any_torchvision_classifier_is_loaded_by_name_with_as_many_classes_as_the_file_has(tmp_path, arch):
    network = torchvision.models.get_model(arch, num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    classifier = load_classifier(tmp_path / "w.pt", arch=arch)
    image = torch.rand(1, 3, 64, 64)
    wanted = torchvision.transforms.functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert classifier.num_outputs == 7 and not classifier.binary
    assert torch.allclose(classifier(image), network(wanted), atol=1e-5)


def test_torchvisions_densenet_files_with_names_of_before_2018_are_read(tmp_path):
    network = torchvision.models.densenet121(num_classes=3)
    state = {re.sub(r"(denselayer\d+\.[a-z]+)([12])\.", r"\1.\2.", k): v for k, v in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "w.pt")
    loaded = load_classifier(tmp_path / "w.pt", arch="densenet121").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


def test_imagenet_is_explained_with_torchvisions_resnet50(golden_weights):
    classifier = load_classifier(golden_weights("resnet50.pth"), **spec_of("ImageNet").classifier())
    assert classifier.num_outputs == 1000 and not classifier.binary


def test_without_file_and_network_imagenet_names_the_flag(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"not given, and \S+ cannot be fetched \(no network\)"):
        load_classifier("", **spec_of("ImageNet").classifier())


# Ours


@pytest.mark.parametrize("name", ["toy.pt", "toy.safetensors"])
def test_our_file_gives_back_the_network_its_names_and_its_size(tmp_path, name):
    network = save_toy(tmp_path / name)
    classifier = load_classifier(tmp_path / name)
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(classifier(image), network((image - 0.5) / 0.5))
    assert (classifier.class_names, classifier.image_size) == (("cat", "dog", "eel"), 32)


def test_two_exclusive_classes_answer_a_yes_or_no_data_set(tmp_path):
    network = save_toy(tmp_path / "toy.pt", ("sad", "glad"))
    classifier = load_classifier(tmp_path / "toy.pt", query=31, binary=True)
    image = torch.rand(2, 3, 32, 32)
    logits = network((image - 0.5) / 0.5)
    assert classifier.binary and torch.equal(classifier(image), logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("dataset", ["CelebA", "CSV"])
def test_of_independent_attributes_the_query_is_asked(tmp_path, dataset):
    network = save_toy(tmp_path / "toy.pt", attributes=True)
    classifier = load_classifier(tmp_path / "toy.pt", query=1, **spec_of(dataset).classifier())
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(classifier(image), network((image - 0.5) / 0.5)[:, 1])
    assert classifier.class_names == ("not dog", "dog")


def test_the_networks_half_precision_weights_are_used_in_float32(tmp_path):
    network = save_toy(tmp_path / "toy.pt")
    tree = load_weights(tmp_path / "toy.pt")
    tree["state_dict"] = {k: v.half() if v.is_floating_point() else v for k, v in tree["state_dict"].items()}
    save_weights(tmp_path / "half.pt", tree)
    image = torch.rand(1, 3, 32, 32)
    half = load_classifier(tmp_path / "half.pt")(image)
    assert half.dtype == torch.float32
    assert torch.allclose(half, network((image - 0.5) / 0.5), atol=1e-2)


@pytest.mark.parametrize("arch", ["small-8", "plain-8", "mixer-8", "dense-8"])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_small_networks_take_pictures_of_28_to_64_pixels(arch, size):
    assert build_classifier(arch, 10)(torch.rand(2, 3, size, size)).shape == (2, 10)


@pytest.mark.parametrize("arch", ["small-8", "plain-8", "mixer-8", "dense-8"])
def test_the_head_of_a_small_network_reads_its_features(arch):
    network, image = build_classifier(arch, 10).eval(), torch.rand(2, 3, 32, 32)
    features = network[:-1](image)
    assert features.shape == (2, network.head.in_features)
    assert torch.equal(network.head(features), network(image))


@pytest.mark.parametrize("arch", ["plain-8", "mixer-8", "dense-8"])
def test_the_other_small_networks_come_back_from_their_files(tmp_path, arch):
    network = build_classifier(arch, 3).eval()
    save_classifier(tmp_path / "toy.pt", network, arch=arch, class_names=["a", "b", "c"], **HALF, image_size=32)
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_classifier(tmp_path / "toy.pt")(image), network((image - 0.5) / 0.5))


@pytest.mark.parametrize("arch", ["plain-3", "mixer-513", "mixer-", "plain-x"])
def test_a_small_network_of_no_such_width_is_refused(arch):
    with pytest.raises(ValueError, match=f"architecture {arch}: the width must be a number from 4 to 512"):
        build_classifier(arch, 3)


def test_small_32_has_a_few_hundred_thousand_parameters():
    assert sum(p.numel() for p in build_classifier("small-32", 10).parameters()) == 308_650


# The wrong file, the wrong flag

WRONG = [
    ("unet_celeba.pt", "CelebA", 31, None, "is a diffusion U-Net, not the DenseNet-121"),
    ("oracle_celeba.pth", "CelebA", 31, None, "is an attribute oracle"),
    ("dive.pth", "CelebAHQ", 31, None, "has 40 outputs"),
    ("steex_hq.tar", "BDDOIA", 1, None, "has 3 outputs"),
    ("dive.pth", "CelebA", 40, None, "query 40, but 0 to 39"),
    ("steex_hq.tar", "CelebAHQ", 30, None, "query 30, but 20, 31, 39"),
    ("dive.pth", "ImageNet", None, None, "DenseNet classifier with 40 outputs, not torchvision's resnet50"),
    ("dive.pth", "Folder", None, None, "the name of the architecture"),
    ("dive.pth", "Folder", None, "rosnet18", "'rosnet18' is not known; near it: res"),
]


@pytest.mark.parametrize("file, dataset, query, arch, said", WRONG)
def test_a_wrong_file_or_flag_is_named(golden_weights, file, dataset, query, arch, said):
    with pytest.raises(WeightsError) as error:
        load_classifier(golden_weights(file), query=query, **spec_of(dataset).classifier(arch))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_many_exclusive_classes_do_not_answer_yes_or_no(tmp_path):
    save_toy(tmp_path / "toy.pt")
    with pytest.raises(WeightsError, match="has 3 exclusive classes, but the data set asks yes or no"):
        load_classifier(tmp_path / "toy.pt", query=31, binary=True)


HEADERS = {
    "version": 2,
    "arch": 7,
    "class_names": ["cat", "dog\x1b[2J", "eel"],
    "mean": [0.5, 0.5],
    "std": [0.5, 0.0, 0.5],
    "image_size": -1,
    "attributes": "yes",
}


@pytest.mark.parametrize("field", HEADERS)
def test_each_field_of_our_header_is_checked(tmp_path, field):
    save_toy(tmp_path / "toy.pt")
    tree = load_weights(tmp_path / "toy.pt")
    tree[field] = HEADERS[field]
    save_weights(tmp_path / "toy.pt", tree)
    with pytest.raises(WeightsError, match=f"whose {field} is"):
        load_classifier(tmp_path / "toy.pt")


@pytest.mark.parametrize("arch", ["regnet_y_128gf", "small-512", "vit_h_14", "small-0", "eval"])
def test_a_small_file_that_names_a_large_network_costs_nothing(tmp_path, arch, monkeypatch):
    save_toy(tmp_path / "toy.pt")
    tree = load_weights(tmp_path / "toy.pt") | {"arch": arch}
    save_weights(tmp_path / "toy.pt", tree)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: pytest.fail("it was filled"))
    with pytest.raises(WeightsError):
        load_classifier(tmp_path / "toy.pt")


def test_another_format_is_one_entry(tmp_path, monkeypatch):
    """As a user's module adds one: nothing else is touched."""

    def build_grey(tree, wanted):
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, len(tree["grey"])))
        network.load_state_dict({"2.weight": tree["grey"], "2.bias": torch.zeros(len(tree["grey"]))})
        return classifiers.Classifier(network, ((0.0,) * 3, (1.0,) * 3), num_outputs=len(tree["grey"]))

    mine = classifiers.Format(lambda tree, wanted: "grey" in tree, build_grey)
    monkeypatch.setattr(classifiers, "FORMATS", [mine, *classifiers.FORMATS])
    torch.save({"grey": torch.ones(4, 3)}, tmp_path / "grey.pt")
    classifier = load_classifier(tmp_path / "grey.pt")
    assert classifier(torch.full((2, 3, 8, 8), 0.5)).tolist() == [[1.5] * 4] * 2 and not classifier.training
