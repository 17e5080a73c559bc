"""What a user's program imports: ACE and what it found, saved as main.py would."""

import io

import pytest
import torch
import yaml
from PIL import Image

import ace_counterfactuals
from ace_counterfactuals import ACE, Explanation, evaluate, explain, load_classifier, load_denoiser, refine
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import refine as postprocessing
from ace_counterfactuals.core.data.pictures import decode, to_tensor
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.models.denoisers import DiffusionModel
from tests.support.toys import CLASSES, UNET, ToyClassifier, Workshop, pictures, toy_diffusion, toy_unet, tree

SETTINGS = {"attack_iterations": 2, "attack_step": 8, "timestep_respacing": "10", "sampling_time_fraction": 0.2}
SETTINGS |= {"sampling_dilation": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    shop.run(label_query="boot", label_target="shirt", attack_iterations=2)
    return shop


@pytest.fixture(scope="module")
def networks(shop):
    flags = {name: value for name, value in UNET.items() if name not in ("dropout", "use_checkpoint")}
    return load_classifier(shop.classifier), load_denoiser(shop.model, diffusion_steps=100, **flags)


@pytest.fixture(scope="module")
def unknown():
    """Networks that no file is known of."""
    return ToyClassifier(), DiffusionModel(toy_unet(), toy_diffusion(""))


@pytest.fixture(scope="module")
def found(networks):
    return explain(pictures(3), *networks, target="coat", **SETTINGS)


def test_what_is_saved_is_what_main_writes(shop, networks, tmp_path):
    files = sorted((shop.data / "boot").iterdir())
    images = torch.stack([to_tensor(decode(file)) for file in files])
    names = [file.relative_to(shop.data).as_posix() for file in files]
    ace = ACE(*networks, label_query=0, **SETTINGS)
    indices = sorted(ResultFolder(shop.output, "exp").read()[0])
    root = ace.explain(images, "shirt", labels=[0] * len(images), indices=indices, files=names).save(tmp_path)
    own, theirs = tree(root), tree(shop.results())
    described, wanted = (yaml.safe_load(files.pop("config.yaml")) for files in (own, theirs))
    assert described["flags"].pop("data_dir") == "" and wanted["flags"].pop("data_dir") == str(shop.data)
    assert own == theirs and described.pop("sha256") != wanted.pop("sha256") and described == wanted


def test_the_other_programs_read_what_is_saved(found, tmp_path):
    found.save(tmp_path)
    assert [len(one.pictures) for one in evaluate(tmp_path, device="cpu").experiments] == [3]
    where = ["--output_path", str(tmp_path), "--device", "cpu"]
    assert postprocessing.main([*where, "--sampling_inpaint", "0.3"]) == 0


def test_what_is_saved_later_under_other_indices_is_added(networks, tmp_path):
    ace = ACE(*networks, **SETTINGS)
    for indices in ([0, 1], [7]):
        root = ace.explain(pictures(len(indices)), 1, indices=indices).save(tmp_path)
    assert [path.stem for path in sorted((root / "records").iterdir())] == ["0000000", "0000001", "0000007"]
    assert yaml.safe_load((root / "summary.yaml").read_text())["n"] == 3
    with pytest.raises(ValueError, match="seed 5"):
        ACE(*networks, **SETTINGS, seed=5).explain(pictures(1), 1).save(tmp_path)


def test_any_callable_is_explained_and_named_in_the_sheet_but_not_in_the_weights(unknown, tmp_path):
    found = ACE(*unknown, class_names=CLASSES, **SETTINGS).explain(pictures(2), "shirt")
    described = yaml.safe_load((found.save(tmp_path) / "config.yaml").read_text())
    assert (described["weights"], described["flags"]["model_path"]) == ({}, "")
    assert described["classes"] == list(CLASSES) and described["flags"]["diffusion_steps"] == 100
    assert found.target.tolist() == [2, 2]


def test_a_binary_classifier_is_flipped_where_no_target_is_given(unknown):
    found = explain(pictures(2), ToyClassifier(binary=True), unknown[1], **SETTINGS)
    assert (found.target == 1 - found.prediction).all()


def test_a_region_is_where_pictures_change(unknown):
    found = explain(pictures(2), *unknown, target=1, region="0,0,4,8", **SETTINGS)
    changed = (found.counterfactual != found.image).any(1)
    assert changed[..., :4].any() and not changed[..., 4:].any()


def test_a_line_says_what_was_found(found):
    assert repr(found).startswith("Explanation(3 pictures, ")


def test_refining_takes_the_pre_explanations_and_its_own_steps(found, networks):
    again = refine(found, *networks, **SETTINGS, sampling_inpaint=0.9)
    assert torch.equal(again.pre_explanation, found.pre_explanation) and torch.equal(again.target, found.target)
    assert again.keep.sum() > found.keep.sum()
    same = refine(found, *networks, **SETTINGS)
    assert torch.equal(same.counterfactual, found.counterfactual) and same.origin == found.origin


def test_a_preset_gives_the_settings_and_a_keyword_goes_before_it(networks):
    config = ACE(*networks, preset="celeba", attack_iterations=3).config
    assert (config.attack.dist_l1, config.attack.attack_iterations, config.data.label_query) == (0.003, 3, 31)
    assert config.model.num_channels == UNET["num_channels"] and config.data.data_dir == ""


def test_the_sheet_is_a_figure_and_the_objects_picture(found):
    sheet = Image.open(io.BytesIO(found._repr_png_()))
    assert sheet.width > sheet.height > 128
    width, height = found.show().get_size_inches()
    assert (round(width * 100), round(height * 100)) == sheet.size


REFUSED = [
    ({"attack_iteration": 3}, {}, "attack_iteration"),
    ({"data_dir": "x"}, {}, "data_dir"),
    ({"attack_iterations": 0}, {}, "attack_iterations"),
    ({"preset": "fashon"}, {}, "preset"),
    ({"sampling_dilation": 4}, {}, "sampling_dilation"),
    ({"sampling_time_fraction": 0.001}, {}, "sampling_time_fraction"),
    ({"region": "5,5,1,1"}, {}, "region"),
    ({}, {"target": "coat"}, "target"),
    ({"class_names": CLASSES}, {"target": "cot"}, "target"),
]


@pytest.mark.parametrize(("settings", "asked", "field"), REFUSED)
def test_a_setting_that_cannot_be_used_is_refused_by_name(unknown, settings, asked, field):
    with pytest.raises(FlagError) as caught:
        ACE(*unknown, **settings).explain(pictures(1), **asked)
    assert caught.value.field == field


@pytest.mark.parametrize("asked", [{"labels": [1, 1]}, {"indices": [1, 2]}, {"files": []}, {"target": 3}])
def test_what_does_not_fit_the_pictures_or_the_classifier_is_refused(unknown, asked):
    with pytest.raises(ValueError):
        ACE(*unknown, **SETTINGS).explain(pictures(1), **asked)


def test_no_pictures_are_refused(unknown):
    with pytest.raises(ValueError, match="0 pictures"):
        ACE(*unknown, **SETTINGS).explain(pictures(1)[:0])


def test_the_names_are_those_of_the_package_and_no_others():
    assert set(ace_counterfactuals.__all__) <= set(dir(ace_counterfactuals))
    assert ace_counterfactuals.Explanation is Explanation
    with pytest.raises(AttributeError):
        ace_counterfactuals.Explanations  # noqa: B018
