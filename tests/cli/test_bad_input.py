"""Each mistake and each mishap: one line on stderr, exit code 2, no traceback, and what was finished stays."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.method import explain as explain_module
from ace_counterfactuals.core.runs import run as run_module
from ace_counterfactuals.models.classifiers import build_classifier
from tests.support.paths import MAIN
from tests.support.toys import CLASSES, Workshop, exit_code, randomised, toy_unet, tree, write_classifier


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """For runs that are refused before they write."""
    return Workshop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def refusal(workshop, code=2, **changes):
    """The last line on stderr of a run that ends with ``code``; the lines before it are notes."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as stderr:
        assert workshop.exit_code(**changes) == code
    *notes, last = stderr.getvalue().splitlines()
    assert all(line.startswith("note: ") for line in notes)
    return last


def refused_untouched(shop, **changes):
    """The refusal of a run that wrote nothing."""
    line = refusal(shop, **changes)
    assert line.startswith("error: ")
    assert not shop.output.exists()
    return line


CONTRADICTIONS = [
    ({"chunk": 3, "chunks": 3}, "--chunk 3: wanted 0 to 2, since chunks is 3"),
    ({"sampling_dilation": 4}, "--sampling_dilation 4 is even"),
    ({"attack_joint": False, "attack_joint_shortcut": True}, "attack_joint False"),
    ({"attack_joint": False, "attack_joint_checkpoint": True}, "attack_joint False"),
    ({"attack_filter": "one-step", "attack_joint": False}, "--attack_filter one-step"),
    ({"attack_filter": "one-step", "attack_joint_shortcut": True}, "--attack_filter one-step"),
    ({"attack_filter": "one-step", "attack_joint_checkpoint": True}, "--attack_filter one-step"),
    ({"attack_stop_confidence": 0}, "--attack_stop_confidence 0"),
    ({"attack_stop_confidence": 1.5}, "--attack_stop_confidence 1.5"),
    ({"attack_method": "C&W"}, "--attack_method C&W is targeted"),
    ({"class_cond": True}, "--class_cond True"),
    ({"timestep_respacing": "200"}, "--timestep_respacing"),
    ({"timestep_respacing": "abc"}, "--timestep_respacing"),
    ({"sampling_time_fraction": 0.01}, "--sampling_time_fraction 0.01 of 10 respaced steps is less than one step"),
    ({"refine_time_fraction": 0.01}, "--refine_time_fraction 0.01 of 10 respaced steps is less than one step"),
    ({"refine_timestep_respacing": "x"}, "--refine_timestep_respacing 'x': wanted"),
    ({"exp_name": ""}, "--exp_name ''"),
    ({"exp_name": "../other"}, "--exp_name '../other'"),
    ({"exp_name": "/tmp/other"}, "--exp_name '/tmp/other'"),
    ({"batch_size": 0}, "--batch_size 0: out of range"),
    ({"attack_methd": "PGD"}, "--attack_methd: no such flag; did you mean --attack_method?"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_a_contradiction_is_refused_by_name_before_anything_is_opened(shop, changes, message):
    nothing = {"data_dir": "/nowhere", "model_path": "/nowhere", "classifier_path": "/nowhere"}
    assert message in refused_untouched(shop, **nothing, **changes)


@pytest.mark.parametrize("flag", ["model_path", "classifier_path"])
def test_a_weight_file_that_is_not_given_is_asked_for(shop, flag):
    assert f"--{flag}" in refused_untouched(shop, **{flag: None})


@pytest.mark.parametrize("flag", ["model_path", "classifier_path"])
def test_a_missing_weight_file_is_named(shop, flag):
    line = refused_untouched(shop, **{flag: shop.folder / "nowhere.pt"})
    assert "nowhere.pt" in line and "no such file" in line


@pytest.mark.parametrize("flag", ["model_path", "classifier_path"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_weight_file_is_named(shop, flag, share):
    whole = Path(shop.flags[flag]).read_bytes()
    path = shop.folder / "short.pt"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "short.pt" in refused_untouched(shop, **{flag: path})


@pytest.mark.parametrize("flag", ["model_path", "classifier_path"])
def test_a_file_that_is_no_weights_is_named(shop, flag):
    path = shop.folder / "page.pt"
    path.write_text("<html>404</html>")
    assert "page.pt" in refused_untouched(shop, **{flag: path})


def test_the_classifier_given_as_the_diffusion_model_is_named_for_what_it_is(shop):
    assert "is no diffusion U-Net" in refused_untouched(shop, model_path=shop.classifier)


def test_the_diffusion_model_given_as_the_classifier_is_named_for_what_it_is(shop):
    assert "--classifier_path" in refused_untouched(shop, classifier_path=shop.model)


@pytest.mark.parametrize(
    ("flag", "value", "right"),
    [
        ("num_channels", 64, 32),
        ("num_res_blocks", 2, 1),
        ("learn_sigma", False, True),
        ("channel_mult", "1,2,2", "1,2"),
        ("resblock_updown", False, True),
        ("use_scale_shift_norm", False, True),
        ("attention_resolutions", "8", "4"),
    ],
)
def test_a_diffusion_model_of_another_architecture_is_answered_with_the_flag_that_fits(shop, flag, value, right):
    line = refused_untouched(shop, **{flag: value})
    assert f"--{flag} {value}, but {shop.model} has {right}" in line


def test_a_classifier_without_our_header_is_answered_with_what_is_wanted(shop):
    path = shop.folder / "plain.pt"
    torch.save(randomised(build_classifier("small-4", 3)).state_dict(), path)
    assert "train_classifier.py" in refused_untouched(shop, classifier_path=path)


@pytest.mark.parametrize(
    ("folder", "message"),
    [("nowhere", "no such folder"), ("empty", "wanted pictures"), ("model.pt", "not a folder")],
)
def test_a_data_directory_without_pictures_is_refused(shop, folder, message):
    (shop.folder / "empty").mkdir(exist_ok=True)
    line = refused_untouched(shop, data_dir=shop.folder / folder)
    assert "--data_dir" in line and message in line


def test_a_data_directory_that_is_not_given_is_asked_for(shop):
    assert "--data_dir is empty" in refused_untouched(shop, data_dir=None)


def test_labels_outside_the_classifiers_outputs_are_refused(shop):
    """Labels by number: the classifier's file names no classes."""
    from torchvision.models import squeezenet1_1

    path = shop.folder / "two.pt"
    torch.save(squeezenet1_1(num_classes=2).state_dict(), path)
    line = refused_untouched(shop, classifier_path=path, classifier_arch="squeezenet1_1")
    assert "labels up to 2" in line and "has 2 outputs" in line


def test_classes_that_the_classifier_does_not_know_are_named(shop):
    two = write_classifier(shop.folder / "two_names.pt", CLASSES[:2])
    line = refused_untouched(shop, classifier_path=two)
    assert "classes that the classifier" in line and "does not know: shirt" in line


@pytest.mark.parametrize("flag", ["label_query", "label_target"])
@pytest.mark.parametrize("value", ["cot", 3, -2])
def test_a_class_that_does_not_exist_is_answered_with_those_that_do(shop, flag, value):
    settings = {"label_query": "boot", "label_target": "shirt", flag: value}
    line = refused_untouched(shop, **settings)
    assert f"--{flag} {value}" in line and "1 coat" in line


def test_a_target_that_is_the_query_is_refused(shop):
    assert "--label_target coat is label_query itself" in refused_untouched(shop, label_query="coat", label_target=1)


def test_an_empty_selection_says_how_many_there_were_and_which_rule_removed_them(workshop):
    shutil.rmtree(workshop.data / "coat")
    (workshop.data / "coat").mkdir()
    line = refused_untouched(workshop, label_query="coat", label_target="boot")
    assert "--label_target 0 keeps" in line and "label_query 1 coat" in line and "none of the 4" in line
    assert "there are: 2 x 0 boot, 2 x 2 shirt" in line


def test_a_target_without_a_query_is_answered_with_the_missing_flag(shop):
    assert "label_query -1 (unknown), which is not given" in refused_untouched(shop, label_target="coat")


def test_an_empty_chunk_says_why(shop):
    line = refused_untouched(shop, chunk=7, chunks=9)
    assert "--chunk 7 of 9 is empty: none of the 6 selected pictures" in line


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(shop, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert f"--device {device}" in refused_untouched(shop, device=device)


def test_an_unreadable_picture_is_named_skipped_and_counted_and_the_run_goes_on(workshop):
    bad = workshop.data / "coat" / "001.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert workshop.exit_code() == 0
    assert err.getvalue().count(str(bad)) == 1 and "note: skipped: " in err.getvalue()
    assert "skipped: 1" in out.getvalue()
    summary = yaml.safe_load((workshop.results() / "summary.yaml").read_text())
    assert (summary["n"], summary["skipped"]) == (5, 1)


def test_a_skipped_picture_is_tried_again_when_it_is_mended(workshop):
    bad = workshop.data / "coat" / "001.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        workshop.run()
        bad.write_bytes(whole)
        workshop.run()
    summary = yaml.safe_load((workshop.results() / "summary.yaml").read_text())
    assert (summary["n"], summary["skipped"]) == (6, 0)


def test_if_no_picture_can_be_read_the_run_says_so(workshop):
    for path in workshop.data.rglob("*.png"):
        path.write_bytes(b"")
    assert refusal(workshop).startswith("error: no picture could be explained")


def finished(workshop):
    return {path.stem for path in (workshop.results() / "records").glob("*.json")}


def test_a_full_disk_ends_the_run_and_keeps_what_was_finished(workshop, monkeypatch):
    write, left = os.fsync, [30]  # config.yaml, the log and the 10 files of the first picture fit, each with its folder

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    assert "No space left on device" in refusal(workshop)
    assert finished(workshop) == {"0000000"}
    assert not list(workshop.output.rglob("*.tmp"))
    monkeypatch.setattr(atomic.os, "fsync", write)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as err:
        assert workshop.exit_code() == 0
    assert "1 of 6 pictures are finished already" in err.getvalue()
    assert len(finished(workshop)) == 6


@pytest.mark.parametrize("place", ["below a file", "where nobody may write"])
def test_an_output_folder_that_cannot_be_written_is_named(shop, place):
    output = shop.model / "out" if place == "below a file" else Path("/proc/out")
    line = refusal(shop, output_path=output)
    assert line.startswith("error: ") and str(output) in line


def test_an_output_folder_of_other_pictures_is_refused(workshop):
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        workshop.run(num_samples=1)
    other = Workshop(workshop.folder / "other")
    for path in other.data.rglob("*.png"):
        path.write_bytes((workshop.data / "shirt" / "002.png").read_bytes())
    line = refusal(other, output_path=workshop.output, exp_name="second", num_samples=1)
    assert "is another picture than boot/000.png" in line and "need another output folder" in line


def test_a_result_folder_with_a_foreign_config_is_refused(workshop):
    workshop.results().mkdir(parents=True)
    for text in ("a: b: c", "[1, 2]", ""):
        (workshop.results() / "config.yaml").write_text(text)
        assert str(workshop.results() / "config.yaml") in refusal(workshop)


def test_nan_from_the_network_names_picture_and_step_and_keeps_what_was_finished(workshop, monkeypatch):
    explain = explain_module.explain

    def failing(image, task, *, indices, **options):
        def poisoned(x, timesteps, classes=None):
            output = task.denoiser(x, timesteps, classes).clone()
            output[[index == 3 for index in indices]] = torch.nan
            return output

        return explain(image, replace(task, denoiser=poisoned), indices=indices, **options)

    monkeypatch.setattr(run_module, "explain", failing)
    line = refusal(workshop)
    assert "picture 0000003: NaN or infinity in iteration 0 of the attack, at denoising step 1 of 2" in line
    assert finished(workshop) == {"0000000", "0000001"}
    assert yaml.safe_load((workshop.results() / "summary.yaml").read_text())["n"] == 2


def test_weights_of_nan_are_named_with_picture_and_step(workshop):
    state = toy_unet().state_dict()
    state["out.2.bias"][:] = torch.nan
    torch.save(state, workshop.folder / "nan.pt")
    line = refusal(workshop, model_path=workshop.folder / "nan.pt")
    assert "picture 0000000, 0000001: NaN" in line and "at denoising step 1 of 2" in line


def test_an_interrupted_run_says_so_in_one_line_and_keeps_what_was_finished(workshop, monkeypatch):
    explain, calls = run_module.explain, []

    def interrupted(*inputs, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return explain(*inputs, **options)

    monkeypatch.setattr(run_module, "explain", interrupted)
    assert refusal(workshop, code=130) == "interrupted; what was finished is kept, and the same command continues"
    assert finished(workshop) == {"0000000", "0000001"}
    assert yaml.safe_load((workshop.results() / "summary.yaml").read_text())["n"] == 2


@pytest.mark.slow
def test_ctrl_c_ends_the_program_with_130_and_the_next_run_goes_on(workshop):
    command = [sys.executable, str(MAIN), *workshop.arguments(batch_size=1, attack_iterations=20)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while not list(workshop.output.rglob("records/*.json")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; what was finished is kept, and the same command continues"
    assert "Traceback" not in errors
    kept = tree(workshop.results() / "records")
    assert kept and not list(workshop.output.rglob("*.tmp"))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        workshop.run(batch_size=1, attack_iterations=20)
    after = tree(workshop.results() / "records")
    assert len(after) == 6 and kept.items() <= after.items()


@pytest.mark.parametrize("error", [ValueError("two\nlines"), OSError(errno.EACCES, "no"), FloatingPointError("x")])
def test_an_error_of_the_users_is_one_line(error, capsys):
    def script():
        raise error

    assert exit_code(script) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_error_of_our_own_is_not_hidden():
    def script():
        raise AssertionError("an invariant")

    with pytest.raises(AssertionError):
        exit_code(script)
