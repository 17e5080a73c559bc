"""The evaluation networks print what the original's scripts printed for the recorded folder."""

import pytest
import torch
import torchvision

from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import save_classifier
from ace_counterfactuals.models.judges import caffe_name, caffe_resnet50, load_oracle, load_simsiam, load_vggface2
from ace_counterfactuals.models.loading import WeightsError, load_weights, save_weights, state_dict
from tests.support import weight_files as files
from tests.support.paths import GOLDEN

EVAL = GOLDEN / "eval/celeba"


@pytest.fixture(scope="module")
def oracle(golden_weights):
    return load_oracle(golden_weights("oracle_celeba.pth"), of="CelebA")


@torch.no_grad()
def test_the_celebahq_oracle_sees_the_image_between_minus_one_and_one_once(golden_weights):
    oracle = load_oracle(golden_weights("oracle_hq.tar"), of="CelebA-HQ")
    image = torch.rand(1, 3, 224, 224)
    assert torch.allclose(oracle(image), torch.sigmoid(oracle.network(2 * image - 1)), atol=1e-5)
    assert oracle(image).shape == (1, 40)


def test_an_oracle_is_frozen_and_in_eval_mode(oracle):
    assert not oracle.training and not any(p.requires_grad for p in oracle.parameters())


def test_caffes_names_are_those_of_the_published_file(golden_weights):
    state = state_dict(load_weights(golden_weights("oracle_celeba.pth")))
    trunk = caffe_resnet50(torch.nn.Identity()).state_dict()
    names = {f"feat_extract.{caffe_name(name)}" for name in trunk}
    assert names == {name for name in state if name.startswith("feat_extract.conv")}


def test_a_caffe_resnet_differs_from_torchvisions_in_strides_and_pooling_alone():
    ours = caffe_resnet50(torch.nn.Identity()).eval()
    theirs = torchvision.models.resnet50()
    assert ours.layer2[0].conv1.stride == (2, 2) and ours.layer2[0].conv2.stride == (1, 1)
    assert {k for k in theirs.state_dict() if not k.startswith("fc.")} == set(ours.state_dict())
    assert ours.maxpool(torch.rand(1, 1, 112, 112)).shape[-1] == 56


def test_an_attribute_classifier_of_ours_is_an_oracle_too(tmp_path):
    network = build_classifier("small-4", 2).eval()
    header = {"class_names": ["hat", "tie"], "mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 32}
    save_classifier(tmp_path / "o.pt", network, arch="small-4", attributes=True, **header)
    oracle, image = load_oracle(tmp_path / "o.pt"), torch.rand(3, 3, 32, 32)
    assert torch.equal(oracle(image), torch.sigmoid(network((image - 0.5) / 0.5)))
    assert oracle.class_names == ("hat", "tie")


def test_exclusive_classes_are_no_attributes(tmp_path):
    header = {"class_names": ["hat", "tie"], "mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 32}
    save_classifier(tmp_path / "o.pt", build_classifier("small-4", 2), arch="small-4", **header)
    with pytest.raises(WeightsError, match="attributes are independent"):
        load_oracle(tmp_path / "o.pt")


def test_the_other_data_sets_oracle_is_refused(golden_weights):
    with pytest.raises(WeightsError, match="is CelebA's oracle; wanted CelebA-HQ's"):
        load_oracle(golden_weights("oracle_celeba.pth"), of="CelebA-HQ")


JUDGES = {"oracle_celeba.pth": load_oracle, "resnet50_ft_weight.pkl": load_vggface2, "simsiam.pth.tar": load_simsiam}


@pytest.mark.parametrize("name", JUDGES)
def test_loading_draws_no_random_numbers_of_the_program(golden_weights, name):
    before = torch.get_rng_state()
    JUDGES[name](golden_weights(name))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("load", JUDGES.values())
def test_a_swapped_file_is_named_for_what_it_is(tmp_path, load):
    save_weights(tmp_path / "w.pt", {"time_embed.0.weight": torch.ones(2, 2)})
    with pytest.raises(WeightsError, match="a diffusion U-Net"):
        load(tmp_path / "w.pt")


# Every published format, bit for bit, and again as safetensors

PUBLISHED = [
    "unet_celeba.pt",
    "dive.pth",
    "steex_hq.tar",
    "oracle_celeba.pth",
    "resnet50_ft_weight.pkl",
    "simsiam.pth.tar",
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_and_their_safetensors_are_the_same_tensors(golden_weights, tmp_path, name):
    path = golden_weights(name)
    tree = load_weights(path)
    state = state_dict(tree)
    for key, value in files.raw_tensors(path):
        assert torch.equal(state[key], value), key
    save_weights(tmp_path / "again.safetensors", tree)
    again = state_dict(load_weights(tmp_path / "again.safetensors"))
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)
