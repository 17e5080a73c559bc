"""train_diffusion.py --distill True makes a student, and main.py attacks through it."""

import csv
import io
from contextlib import redirect_stderr

import pytest
import torch

from ace_counterfactuals.core.cli import train_diffusion
from ace_counterfactuals.models.loading import load_weights
from tests.support.refinery import Refinery
from tests.support.toys import exit_code

ONE_STEP = {"attack_filter": "one-step", "attack_iterations": 4}


def distilled(shop, folder, *more, code=0):
    """Of the shop's model; returns the file, or what was said."""
    flags = ["--dataset", "Folder", "--data_dir", str(shop.data), "--model_path", str(shop.model), "--distill", "True"]
    flags += [
        "--output_path",
        str(folder),
        "--image_size",
        "8",
        "--diffusion_steps",
        "100",
        "--num_heads",
        "4",
        "--device",
        "cpu",
    ]
    flags += ["--timestep_respacing", "10", "--sampling_time_fraction", "0.2", "--student_width", "8"]
    flags += ["--batch_size", "4", "--lr", "0.01", "--ema_rate", "0.5", "--lr_anneal_steps", "40"]
    with redirect_stderr(io.StringIO()) as said:
        assert exit_code(lambda: train_diffusion.main([*flags, "--num_workers", "0", *more])) in (None, code)
    return said.getvalue().splitlines()[-1] if code else folder / "ema_0.5_000040.pt"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Refinery(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def student(shop):
    return distilled(shop, shop.folder / "student", "--save_interval", "20", "--log_interval", "1")


def refused(shop, *words, **flags):
    with redirect_stderr(io.StringIO()) as said:
        assert shop.exit_code(**flags) == 2
    last = said.getvalue().splitlines()[-1]
    assert all(word in last for word in words), last


def test_a_student_comes_nearer_to_what_its_model_predicts(student):
    with open(student.parent / "log.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    page = (student.parent / "training.html").read_text()
    assert "Training of a student" in page and "what the\nstudent does" in page and "part of the chain" not in page
    assert {"samples000040.png", "training.html", "config.yaml"} <= {path.name for path in student.parent.iterdir()}


def test_a_training_of_a_student_goes_on_as_if_it_had_not_stopped(shop, student, tmp_path):
    before = student.parent / "model000020.pt"
    resumed = distilled(shop, tmp_path / "on", "--save_interval", "20", "--resume_checkpoint", str(before))
    one, other = (load_weights(path.with_name("model000040.pt")) for path in (student, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_main_attacks_through_a_student_and_says_so_in_its_record(shop, student):
    shop.run(exp_name="own", **ONE_STEP)
    shop.run(exp_name="every", attack_student=student, attack_student_every=1, **ONE_STEP)
    shop.run(exp_name="by-student", attack_student=student, attack_student_every=2, **ONE_STEP)
    found = {
        name: [path.read_bytes() for path in sorted(shop.results(name).glob("*/*/*/CF/*.png"))]
        for name in ("own", "every", "by-student")
    }
    assert found["own"] == found["every"] != found["by-student"] and found["own"]
    assert "attack_student: sha256:" in (shop.results("by-student") / "config.yaml").read_text()


def test_the_plan_counts_the_calls_of_the_model_alone(shop, student, capsys):
    shop.run(exp_name="plan", attack_student=student, check=True, **ONE_STEP)
    plan = capsys.readouterr().out.partition("at once")[2].partition("disk")[0]
    assert "one step, by a student, as set" in plan and " 3 + 1 back" in plan and "chain" not in plan


def test_an_experiment_is_not_continued_without_its_student_or_with_another(shop, student):
    shop.run(exp_name="held", attack_student=student, **ONE_STEP)
    refused(shop, "attack_student is another file", exp_name="held", **ONE_STEP)


def test_pre_explanations_of_a_student_are_refined_where_it_is_gone(shop, student, tmp_path):
    copied = tmp_path / "student.pt"
    copied.write_bytes(student.read_bytes())
    shop.run(exp_name="refined", attack_student=copied, **ONE_STEP)
    copied.unlink()
    shop.refine(exp_name="refined", sampling_inpaint="0.3")
    assert [*shop.results("refined").glob("all_filtered*/**/CF/*.png")]


REFUSED = [
    ({"attack_filter": "chain"}, "--attack_student", "attack_filter one-step"),
    ({"sampling_time_fraction": 0.5}, "--attack_student", "alphas_cumprod"),
    ({"attack_stop_confidence": 0.9, "cudnn_deterministic": True}, "--attack_student", "attack_stop_confidence"),
    ({"attack_student": "nowhere.pt"}, "--attack_student", "nowhere.pt"),
]


@pytest.mark.parametrize(("flags", "words"), [(flags, words) for flags, *words in REFUSED], ids=str)
def test_a_student_is_refused_where_it_cannot_stand_for_the_model(shop, student, flags, words):
    refused(shop, *words, **{"exp_name": "no", "attack_student": student, **ONE_STEP, **flags})


def test_a_network_of_another_kind_is_no_student(shop):
    refused(shop, "is no student", exp_name="no", attack_student=shop.classifier, **ONE_STEP)


BAD = [
    (["--sampling_time_fraction", "0"], "--sampling_time_fraction 0"),
    (["--model_path", ""], "--model_path"),
    (["--sample", "3"], "--sample 3: of no use with distill"),
    (["--init_weights", "x.pt"], "--init_weights x.pt: of no use with distill"),
    (["--student_width", "12"], "--student_width 12"),
    (["--distill", "False"], "give distill True, too"),
]


@pytest.mark.parametrize(("flags", "said"), BAD, ids=str)
def test_flags_that_a_student_has_no_use_for_end_in_a_sentence(shop, tmp_path, flags, said):
    assert said in distilled(shop, tmp_path, *flags, code=2)
