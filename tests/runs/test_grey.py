"""Grey pictures stay grey: one channel from the data folder to the stored counterfactual."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ace_counterfactuals.core.cli import refine
from ace_counterfactuals.core.data.imageset import open_dataset, with_channels
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.filtering import Filter, to_diffusion
from ace_counterfactuals.core.method.gradients import (
    chain_gradient,
    checkpointed_gradient,
    one_step_gradient,
    shortcut_gradient,
)
from ace_counterfactuals.core.method.noise import Draw, image_noise, no_noise
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import load_classifier, save_classifier
from ace_counterfactuals.models.denoisers import DiffusionModel
from tests.support.toys import (
    CLASSES,
    SIDE,
    ToyClassifier,
    Workshop,
    pictures,
    randomised,
    relative_distance,
    toy_diffusion,
    toy_task,
    toy_unet,
    tree,
    write_pictures,
)

NOISE = image_noise(4, [0, 1], 0)
UNETS = {
    channels: DiffusionModel(toy_unet(in_channels=channels), toy_diffusion(""), channels=channels)
    for channels in (1, 3)
}


def in_grey(folder):
    """The pictures of a folder, made grey and stored with three equal channels."""
    for file in folder.rglob("*.png"):
        with Image.open(file) as picture:
            grey = picture.convert("L").convert("RGB")
        grey.save(file)
    return folder


@pytest.fixture
def shop(tmp_path):
    shop = Workshop(tmp_path)
    in_grey(shop.data)
    return shop


def mode(file):
    with Image.open(file) as picture:
        return picture.mode


def modes(output):
    """Of the stored pictures, but for the sheet."""
    return {mode(file) for file in output.rglob("*.png") if file.stem.isdecimal()}


def channels_of(root):
    return yaml.safe_load((root / "config.yaml").read_text())["flags"]["image_channels"]


IN_FULL = {"save_float": True, "label_query": "boot", "label_target": "coat", "attack_method": "C&W"}


@pytest.mark.parametrize("settings", [{}, IN_FULL, {"region": "0,0,4,4"}])
def test_a_folder_of_grey_pictures_is_grey_to_the_last_file(shop, settings):
    shop.run(**settings)
    assert modes(shop.output) == {"L"} and channels_of(shop.results()) == 1


def test_colour_pictures_are_stored_in_colour(tmp_path):
    shop = Workshop(tmp_path)
    shop.run()
    assert "RGB" in modes(shop.output) and channels_of(shop.results()) == 3


def test_refined_again_they_are_grey_and_the_same(shop):
    shop.run(save_float=True)
    words = ["--output_path", str(shop.output), "--exp_name", "exp", "--device", "cpu"]
    assert refine.main(words) == 0
    (refined,) = (path for path in shop.results().iterdir() if path.name.startswith("all_filtered"))
    (counterfactual, *_) = sorted((shop.results() / "explanation").rglob("CF/*.png"))
    again = next(refined.rglob(f"CF/{counterfactual.name}"))
    assert mode(again) == "L" and again.read_bytes() == counterfactual.read_bytes()


def test_merged_chunks_of_grey_pictures_are_the_unsplit_run(shop):
    shop.run(batch_size=1)
    whole = tree(shop.output)
    shop.output = shop.folder / "chunked"
    for part in ({"chunk": 1}, {"chunk": 0}, {"merge_chunks": True}):
        shop.run(batch_size=1, chunks=2, **part)
    assert {name: data for name, data in tree(shop.output).items() if "/c-" not in name} == whole


def test_an_experiment_of_before_the_flag_goes_on_in_colour(shop):
    shop.run(num_samples=1, image_channels=3)
    config = shop.results() / "config.yaml"
    described = yaml.safe_load(config.read_text())
    del described["flags"]["image_channels"]
    config.write_text(yaml.safe_dump(described, sort_keys=False))
    shop.run()
    assert modes(shop.output) - {"L"} == {"RGB"}, "the masks alone have one channel"


def test_other_channels_are_refused_by_name_and_auto_is_what_the_experiment_began_with(shop):
    shop.run(num_samples=1)
    with pytest.raises(ValueError, match=r"image_channels 3 \(there: 1\)"):
        shop.run(image_channels=3)
    shop.run(num_samples=2)
    assert channels_of(shop.results()) == 1


def test_a_colour_picture_that_appears_later_is_named_and_left_out(shop, notes):
    shop.run(num_samples=1)
    late = next((shop.data / "shirt").iterdir())
    Image.fromarray(np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3)).save(late)
    shop.run()
    assert f"{late}: unreadable picture: is in colour, but image_channels is 1" in notes.text


def test_a_folder_of_both_is_taken_as_in_colour_and_said_so(tmp_path, notes):
    folder = in_grey(write_pictures(tmp_path / "pictures"))
    Image.new("RGB", (SIDE, SIDE), "red").save(folder / "coat/001.png")
    images = with_channels(open_dataset("Folder", folder, image_size=SIDE), "auto")
    assert images.channels == 3 and "some pictures of dataset Folder are grey and some in colour" in notes.text


def test_a_grey_picture_is_one_channel_and_a_colour_one_is_refused(tmp_path):
    folder = write_pictures(tmp_path / "pictures", count=3)
    Image.new("RGB", (SIDE, SIDE), (7, 7, 7)).save(folder / "boot/000.png")
    images = with_channels(open_dataset("Folder", folder, image_size=SIDE), 1)
    assert torch.equal(images[0].image, torch.full((1, SIDE, SIDE), 7 / 255))
    with pytest.raises(UnreadableImage, match="is in colour"):
        images[1]


def test_networks_of_one_channel_are_refused_for_colour_and_explain_grey_pictures(shop):
    grey = shop.folder / "grey.pt"
    network = randomised(build_classifier("small-4", 3, in_channels=1))
    save_classifier(grey, network, arch="small-4", class_names=CLASSES, mean=[0.5], std=[0.2], image_size=SIDE)
    unet = shop.folder / "grey-unet.pt"
    torch.save(toy_unet(in_channels=1).state_dict(), unet)
    for flag, file in (("classifier_path", grey), ("model_path", unet)):
        with pytest.raises(ValueError, match=f"{flag} .*takes grey pictures, of 1 channel, but image_channels is 3"):
            shop.run(image_channels=3, **{flag: file})
    shop.run(classifier_path=grey, model_path=unet)
    assert modes(shop.output) == {"L"}


@pytest.mark.parametrize("arch", ["small-4", "plain-4", "mixer-4", "dense-4", "resnet18", "vit_b_32"])
def test_a_classifier_of_one_channel_is_built_by_any_name(arch):
    size = 224 if arch.startswith("vit") else 32
    with torch.no_grad():
        assert build_classifier(arch, 5, in_channels=1).eval()(torch.rand(2, 1, size, size)).shape == (2, 5)


def test_torchvisions_network_of_one_channel_is_known_by_its_file(tmp_path):
    torch.save(build_classifier("resnet18", 4, in_channels=1).state_dict(), tmp_path / "grey.pth")
    classifier = load_classifier(tmp_path / "grey.pth", arch="resnet18")
    image = torch.rand(2, 1, 32, 32)
    assert classifier.channels == 1 and torch.equal(classifier(image), classifier(image.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match="takes grey pictures, and these are in colour"):
        classifier(torch.rand(2, 3, 32, 32))


GRADIENTS = {
    "chain": chain_gradient,
    "one step": one_step_gradient,
    "checkpointed": lambda *given: checkpointed_gradient(*given, segment=2),
    "shortcut": shortcut_gradient,
}


@pytest.mark.parametrize("way", GRADIENTS)
def test_a_grey_gradient_is_that_of_the_three_channels_summed(way):
    """Where a model of three channels averages what it gives back, and shows the classifier three equal ones."""
    classifier = ToyClassifier(dtype=torch.float64)
    chain, unet = toy_diffusion("20"), toy_unet(torch.float64)

    def objective(picture):
        return classifier(picture.mean(1, keepdim=True).expand(-1, 3, -1, -1)).square().sum()

    grey = pictures(2, torch.float64)[:, :1]
    found = GRADIENTS[way](objective, Filter(chain, unet, 5, grey=True), grey, NOISE)
    three = GRADIENTS[way](objective, Filter(chain, unet, 5), grey.expand(-1, 3, -1, -1), NOISE)
    assert relative_distance(found, three.sum(1, keepdim=True)) < 1e-12  # float64, other orders of summing


def test_the_noise_of_a_grey_picture_is_that_of_a_picture_in_colour():
    grey, filter_ = pictures(2)[:, :1], Filter(toy_diffusion("20"), toy_unet(), 5)
    shown = Filter(filter_.diffusion, filter_.model, 5, grey=True).start(grey, NOISE)
    assert torch.equal(shown, filter_.start(grey.expand(-1, 3, -1, -1), NOISE))
    assert not torch.equal(NOISE(Draw.START, 4, to_diffusion(shown))[:, 0], NOISE(Draw.START, 4, shown)[:, 1])


def test_a_filter_of_no_step_leaves_a_grey_picture_as_it_is():
    grey = pictures(2, torch.float64)[:, :1]
    filtered = Filter(toy_diffusion("20"), toy_unet(torch.float64), 0, grey=True)(grey, no_noise)
    assert torch.equal(filtered, (2 * grey - 1 + 1) / 2)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("channels", UNETS)
def test_every_attack_explains_grey_pictures(attack, channels):
    denoiser, classifier = UNETS[channels], shown_three(ToyClassifier())
    task = toy_task(classifier=classifier, denoiser=denoiser, label_target=1, attack_method=attack)
    found = explain(pictures(2)[:, :1], task)
    assert found.counterfactual.shape == found.pre_explanation.shape == (2, 1, SIDE, SIDE)


def shown_three(classifier):
    return lambda image: classifier(image.expand(-1, 3, -1, -1))


def test_pictures_in_colour_are_refused_by_a_diffusion_model_of_one_channel():
    with pytest.raises(ValueError, match="of pictures of 1 channel, but these have 3"):
        explain(pictures(2), toy_task(label_target=1, denoiser=UNETS[1]))
