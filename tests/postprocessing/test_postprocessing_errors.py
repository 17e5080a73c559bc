"""What postprocessing.py refuses, notices and passes over."""

import shutil

import pytest
import yaml
from PIL import Image

from ace_counterfactuals.core.cli import refine
from tests.support.refinery import OWN, RUN, Refinery
from tests.support.toys import exit_code, tree


def test_a_run_of_main_does_not_take_the_name_of_a_setting(refinery):
    refinery.refine()
    with pytest.raises(ValueError, match="is a name of postprocessing.py's folders"):
        refinery.run(exp_name=f"exp/{OWN}")


def test_a_classifier_that_decides_otherwise_about_originals_is_noticed(refinery, capsys):
    for path in refinery.results().glob("pre-explanation/CC/*/Info/*.txt"):
        path.write_text(path.read_text().replace("pred: 0", "pred: 1"))
    refinery.forget_all_but_the_pictures()
    refine.main(refinery.arguments(**RUN))
    assert "decides otherwise about" in capsys.readouterr().err


def test_a_truncated_picture_is_named_and_passed_over(refinery, capsys):
    for path in refinery.results().rglob("0000002.npy"):
        path.unlink()
    png = next(refinery.results().glob("pre-explanation/*/*/CF/0000002.png"))
    data = png.read_bytes()
    png.write_bytes(data[:-30])
    refinery.refine()
    assert f"skipped: {png}: unreadable picture" in capsys.readouterr().err
    assert yaml.safe_load((refinery.results() / OWN / "summary.yaml").read_text())["skipped"] == 1
    png.write_bytes(data)
    refinery.refine()
    assert yaml.safe_load((refinery.results() / OWN / "summary.yaml").read_text())["n"] == 6


def test_an_original_of_another_size_than_its_pre_explanation_is_named(refinery, capsys):
    original = next((refinery.output / "Original").glob("*/0000003.png"))
    Image.new("RGB", (8, 16)).save(original)
    refinery.refine()
    assert "original and pre-explanation are 8 x 16 and 8 x 8 pixels" in capsys.readouterr().err


def test_a_run_without_stored_pictures_cannot_be_refined(tmp_path, capsys):
    workshop = Refinery(tmp_path)
    workshop.run(num_samples=2, attack_iterations=1, save_images=False)
    assert "2 of 2 finished pictures have no stored original or pre-explanation" in workshop.error(capsys)


def test_a_run_that_is_not_finished_is_refined_as_far_as_it_is(tmp_path, capsys):
    workshop = Refinery(tmp_path)
    workshop.run(chunks=3, chunk=1, **RUN)
    workshop.refine()
    assert "2 of the 6 pictures" in capsys.readouterr().err
    workshop.run(**RUN)
    workshop.refine()
    assert "of the 6 pictures" not in capsys.readouterr().err
    assert yaml.safe_load((workshop.results() / OWN / "summary.yaml").read_text())["n"] == 6


def test_an_experiment_that_is_not_there_names_those_that_are(refinery, capsys):
    assert "--exp_name typo: no such experiment" in (error := refinery.error(capsys, exp_name="typo"))
    assert error.endswith("there are: exp")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attack_step": 4}, "attack_step 4.0 (there: 60.0)"),
        ({"region": "0,0,4,4"}, "region 0,0,4,4 (there: '')"),
        ({"image_size": 16}, "image_size 16 (there: 8)"),
        ({"label_target": "coat"}, "label_target coat (there: -1)"),
        ({"dataset": "ImageNet"}, "dataset ImageNet (there: 'Folder')"),
        ({"sampling_inpaint": 1.5}, "--sampling_inpaint 1.5: out of range"),
        ({"sampling_dilation": 4}, "--sampling_dilation 4 is even"),
        ({"sampling_time_fraction": 0.01}, "--sampling_time_fraction 0.01 of 10 respaced steps"),
        ({"timestep_respacing": "101"}, "--timestep_respacing 101"),
        ({"model_path": "/nowhere.pt"}, "/nowhere.pt"),
        ({"num_channels": 64}, "--num_channels"),
        ({"chunk": 3}, "--chunk 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_named_and_nothing_is_written(refinery, capsys, changes, named):
    before = tree(refinery.output)
    assert named in refinery.error(capsys, **changes)
    assert tree(refinery.output) == before


def test_another_size_than_the_stored_pictures_is_named(refinery, capsys):
    refinery.forget_all_but_the_pictures()
    assert exit_code(lambda: refine.main(refinery.arguments(**RUN, image_size=16))) == 2
    assert "is 8 x 8 pixels; give 8" in capsys.readouterr().err


def test_another_classifier_or_a_changed_model_is_refused(refinery, tmp_path, capsys):
    shutil.copy(refinery.model, tmp_path / "model.pt")
    assert "--classifier_path" in refinery.error(capsys, classifier_path=tmp_path / "model.pt")
    config = refinery.results() / "config.yaml"
    config.write_text(config.read_text().replace("model_path: sha256:", "model_path: sha256:0"))
    assert f"--model_path {refinery.model}: is not what" in refinery.error(capsys)
