"""What users have is taken: pictures in any form, a classifier by its SPEC, a diffusion model by its file."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from ace_counterfactuals import ACE, load_denoiser
from ace_counterfactuals.core.api.pictures import given_of
from ace_counterfactuals.core.base import presets
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.data.config import PicturesConfig
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.models.classifiers import load_classifier
from tests.support.toys import CLASSES, SIDE, UNET, ToyClassifier, ToyDenoiser, Workshop, pictures, tree

SETTINGS = {"attack_iterations": 1, "attack_step": 8, "timestep_respacing": "10", "sampling_time_fraction": 0.2}
SETTINGS |= {"sampling_dilation": 3, "batch_size": 2}
NETWORK = {name: value for name, value in UNET.items() if name not in ("dropout", "use_checkpoint")}
NETWORK |= {"diffusion_steps": 100}
PROCESS = {"diffusion_steps": 100, "learn_sigma": True, "image_size": SIDE}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def ace():
    return ACE(ToyClassifier(), ToyDenoiser(), **PROCESS, class_names=CLASSES, **SETTINGS)


IMAGES = pictures(2)
LEVELS = (IMAGES * 255).round().byte().numpy()
FORMS = {
    "an array": IMAGES.numpy(),
    "an array of double precision": IMAGES.double().numpy(),
    "levels": LEVELS,
    "levels with the channels last": LEVELS.transpose(0, 2, 3, 1),
    "PIL pictures": [to_pil(image) for image in IMAGES],
    "tensors": list(IMAGES),
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_in_any_form_are_the_same_pictures(ace, form):
    plain, other = ace.explain(IMAGES, "coat"), ace.explain(FORMS[form], "coat")
    assert torch.allclose(other.image, plain.image, atol=1e-7)
    assert (other.counterfactual - plain.counterfactual).abs().max() < 1e-5


@pytest.mark.parametrize("one", [IMAGES[0], LEVELS[0], to_pil(IMAGES[0])])
def test_one_picture_is_taken_alone(ace, one):
    assert ace.explain(one, "coat").counterfactual.shape == (1, 3, SIDE, SIDE)


def test_grey_pictures_stay_grey_unless_others_are_in_colour():
    grey, colour = Image.new("L", (SIDE, SIDE), 100), to_pil(IMAGES[0])
    for together, channels, wanted in (([grey] * 2, "auto", 1), ([grey, colour], "auto", 3), ([grey] * 2, 3, 3)):
        given = given_of(together, None, PicturesConfig(image_channels=channels))
        assert given.images.shape == (2, wanted, SIDE, SIDE)


def test_transparent_pictures_are_laid_on_the_background():
    clear = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0))
    given = given_of(clear, None, PicturesConfig(background="blue"))
    assert given.images[0, :, 0, 0].tolist() == [0, 0, 1] and clear.mode == "RGBA"


def test_files_and_pil_pictures_are_cut_and_resized_and_files_keep_their_names(tmp_path):
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "a.png")
    given = given_of([tmp_path / "a.png"], SIDE, PicturesConfig())
    assert given.images.shape == (1, 3, SIDE, SIDE) and given.files == [str(tmp_path / "a.png")]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("none.png", "none.png"),
        ([], "0 sizes"),
        ([torch.rand(3, 8, 8), torch.rand(3, 9, 8)], "2 sizes"),
        (torch.ones(1, 3, 8, 8, dtype=torch.int64), "floats in .0, 1., or uint8"),
        (np.zeros((8, 8)), r"shape \(8, 8\)"),
        (torch.full((1, 3, 8, 8), 200.0), r"in \[0, 1\]"),
        (torch.rand(1, 4, 8, 8), r"\(1, 4, 8, 8\)"),
        (3, "got int"),
    ],
)
def test_what_are_no_pictures_is_refused_with_what_is_wanted(ace, images, said):
    with pytest.raises(ValueError, match=said) as refused:
        ace.explain(images)
    assert "\n" not in str(refused.value)


def test_a_folder_is_explained_and_saved_as_main_does(shop, tmp_path):
    shop.run(label_query="boot", label_target="coat", attack_iterations=1)
    ace = ACE(str(shop.classifier), shop.model, label_query="boot", device="cpu", **SETTINGS, **NETWORK)
    root = ace.explain(shop.data, "coat").save(tmp_path)
    own, theirs = tree(root), tree(shop.results())
    described, wanted = (yaml.safe_load(files.pop("config.yaml")) for files in (own, theirs))
    assert own == theirs and described["flags"] == wanted["flags"] and described["weights"] == wanted["weights"]


def test_a_folder_without_a_query_is_explained_whole_with_its_labels(ace, shop):
    found = ace.explain(shop.data, "coat")
    assert found.origin.labels == (0, 0, 1, 1, 2, 2) and found.origin.files[0].startswith("boot/")
    with pytest.raises(FlagError, match="coat2"):
        ace.explain(shop.data, "coat2")


def test_networks_are_named_or_held_and_it_makes_no_difference(shop):
    held = ACE(load_classifier(shop.classifier), load_denoiser(shop.model, **NETWORK), **SETTINGS)
    named = ACE(shop.classifier, str(shop.model), **SETTINGS, **NETWORK)
    assert named.config == held.config and named.class_names == held.class_names == CLASSES
    found = [one.explain(IMAGES, "coat").counterfactual for one in (held, named)]
    assert torch.equal(*found)


def test_a_spec_has_its_own_flags_and_they_are_refused_beside_a_network_that_is_held(tmp_path):
    (tmp_path / "net.py").write_text("from tests.support.toys import ToyClassifier as build\n")
    ace = ACE(f"{tmp_path}/net.py:build", ToyDenoiser(), classifier_mean="0.5", image_size=SIDE, **SETTINGS)
    plain = ToyClassifier()
    assert torch.allclose(ace.classifier(IMAGES), plain(IMAGES - 0.5), atol=1e-6)
    with pytest.raises(FlagError, match="classifier_mean"):
        ACE(plain, ToyDenoiser(), classifier_mean="0.5")


def test_probabilities_of_a_callable_are_made_logits(ace, notes):
    plain, logits = ace.explain(IMAGES, "coat"), ace.classifier
    ace.classifier = lambda image: logits(image).softmax(1)
    found = ace.explain(IMAGES, "coat")
    assert "gives probabilities (softmax)" in notes.text
    assert torch.allclose(found.logits, plain.logits.log_softmax(1), atol=1e-5)


def test_a_module_in_training_mode_is_refused_before_anything_is_attacked(ace):
    ace.classifier = nn.Sequential(nn.Dropout(), ToyClassifier())
    with pytest.raises(ValueError, match=r"in training mode: call its eval\(\)"):
        ace.explain(IMAGES, "coat")


def test_labels_that_the_classifier_has_no_output_for_are_refused(ace):
    with pytest.raises(ValueError, match="labels: 3, but the classifier has 3 classes, 0 to 2"):
        ace.explain(IMAGES, "coat", labels=[0, 3])


def test_what_is_found_is_evaluated_at_once_or_saved_and_evaluated(ace, tmp_path):
    found = ace.explain(IMAGES, "coat")
    passing, kept = found.evaluate(device="cpu"), found.evaluate(tmp_path, "mine", device="cpu")
    flips = [[f.value for f in one.experiments[0].figures if f.key == "flip"] for one in (passing, kept)]
    assert flips[0] == flips[1] and (tmp_path / "Results/mine/config.yaml").exists()


def test_a_classifier_that_is_typed_goes_before_all_that_a_preset_says_of_one(tmp_path):
    preset = tmp_path / "p.yaml"
    preset.write_text("classifier: net.py:build\nclassifier_path: w.pt\nclassifier_size: 64\nattack_step: 3\n")
    weights = parse(MainConfig, "", ["--preset", str(preset), "--classifier", "model.onnx"]).weights
    assert (weights.classifier, weights.classifier_path, weights.classifier_size) == ("", "model.onnx", 0)
    weights = parse(MainConfig, "", ["--preset", str(preset)]).weights
    assert weights.classifier == "net.py:build" and weights.classifier_path.endswith("/w.pt")


def test_a_preset_of_an_installed_package_is_found_and_says_nothing_of_files_that_are_not_there(
    shop, tmp_path, monkeypatch
):
    for file in presets.PRESETS.glob("*.yaml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    for preset in ("small", "photo", "fashion"):
        ace = ACE(shop.classifier, ToyDenoiser(), preset, **PROCESS)
        assert ace.config.attack.dist_l1 > 0 and ace.config.weights.classifier_path == str(shop.classifier)


def test_networks_that_are_held_stay_where_they_are(monkeypatch):
    monkeypatch.setattr("ace_counterfactuals.core.api.ace.choose_device", lambda *_: pytest.fail("asked"))
    ACE(ToyClassifier(), ToyDenoiser(), **PROCESS)
    ACE(lambda image: image.mean((2, 3)), ACE(ToyClassifier(), ToyDenoiser(), **PROCESS).denoiser)
