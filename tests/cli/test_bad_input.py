"""Each mistake and each mishap: one line on stderr, exit code 2, no traceback, and what was finished stays."""

import errno
import io
import os
import re
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
from torchvision.models import squeezenet1_1

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.cli.parsing import showing_notices
from ace_counterfactuals.core.runs import run as run_module
from ace_counterfactuals.models.architectures import build_classifier
from tests.support.paths import MAIN
from tests.support.toys import CLASSES, Workshop, exit_code, randomised, toy_unet, tree, write_classifier


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """For runs that are refused before they write, and what is wrong with each file says its name."""
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    for file in (shop.model, shop.classifier):
        for share in SHARES:
            file.with_suffix(f".{share}").write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    (shop.folder / "page.pt").write_text("<html>404</html>")
    torch.save(randomised(build_classifier("small-4", 3)).state_dict(), shop.folder / "headless.pt")
    torch.save(squeezenet1_1(num_classes=2).state_dict(), shop.folder / "two.pt")
    write_classifier(shop.folder / "two_names.pt", CLASSES[:2])
    shutil.copytree(shop.data, shop.folder / "uncoated")
    for picture in (shop.folder / "uncoated/coat").iterdir():
        picture.unlink()
    (shop.folder / "empty").mkdir()
    return shop


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


CONTRADICTIONS = [
    ({"chunk": 3, "chunks": 3}, "--chunk 3: wanted 0 to 2, since chunks is 3"),
    ({"sampling_dilation": 4}, "--sampling_dilation 4 is even"),
    ({"attack_joint": False, "attack_joint_shortcut": True}, "attack_joint False"),
    ({"attack_joint": False, "attack_joint_checkpoint": True}, "attack_joint False"),
    ({"attack_filter": "one-step", "attack_joint": False}, "--attack_filter one-step"),
    ({"attack_filter": "one-step", "attack_joint_shortcut": True}, "--attack_filter one-step"),
    ({"attack_filter": "one-step", "attack_joint_checkpoint": True}, "--attack_filter one-step"),
    ({"attack_deep_every": 2, "attack_filter": "one-step"}, "--attack_deep_every"),
    ({"attack_deep_every": 2, "attack_joint_checkpoint": True}, "--attack_deep_every"),
    ({"attack_deep_every": 2, "compile": True}, "--attack_deep_every"),
    ({"attack_deep_every": 0}, "--attack_deep_every 0: out of range"),
    ({"attack_step": 0}, "--attack_step 0 changes nothing"),
    ({"attack_epsilon": 0}, "--attack_epsilon 0 changes nothing"),
    ({"dist_l1": "1e39"}, "--dist_l1 1e39"),
    ({"region": "-1,0,5,5"}, "--region -1,0,5,5"),
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
"""Flags, and what the message names"""

NETWORKS, SHARES = ("model", "classifier"), (0.0, 0.3, 0.99)
REFUSED = [
    *(({f"{network}_path": None}, f"--{network}_path") for network in NETWORKS),
    *(({f"{network}_path": Path("nowhere.pt")}, "nowhere.pt", "no such file") for network in NETWORKS),
    *(({f"{network}_path": Path("page.pt")}, "page.pt") for network in NETWORKS),
    *(({f"{n}_path": Path(f"{n}.{share}")}, f"{n}.{share}") for n in NETWORKS for share in SHARES),  # cut off
    ({"model_path": Path("classifier.safetensors")}, "is no diffusion U-Net"),
    ({"classifier_path": Path("model.safetensors")}, "--classifier_path"),
    ({"num_channels": 64}, "--num_channels 64, but", "model.safetensors has 32"),
    ({"num_res_blocks": 2}, "--num_res_blocks 2, but", "model.safetensors has 1"),
    ({"learn_sigma": False}, "--learn_sigma False, but", "model.safetensors has True"),
    ({"channel_mult": "1,2,2"}, "--channel_mult 1,2,2, but", "model.safetensors has 1,2"),
    ({"resblock_updown": False}, "--resblock_updown False, but", "model.safetensors has True"),
    ({"use_scale_shift_norm": False}, "--use_scale_shift_norm False, but", "model.safetensors has True"),
    ({"attention_resolutions": "8"}, "--attention_resolutions 8, but", "model.safetensors has 4"),
    ({"classifier_path": Path("headless.pt")}, "train_classifier.py"),
    ({"classifier_path": Path("two.pt"), "classifier_arch": "squeezenet1_1"}, "labels up to 2", "has 2 outputs"),
    ({"classifier_path": Path("two_names.pt")}, "classes that the classifier", "does not know: shirt"),
    ({"data_dir": None}, "--data_dir is empty"),
    ({"data_dir": Path("nowhere")}, "--data_dir", "no such folder"),
    ({"data_dir": Path("empty")}, "--data_dir", "wanted pictures"),
    ({"data_dir": Path("model.safetensors")}, "--data_dir", "not a folder"),
    *(({"label_query": query, "label_target": 2}, f"--label_query {query}", "1 coat") for query in ("cot", 3, -2)),
    *(({"label_query": 0, "label_target": target}, f"--label_target {target}", "1 coat") for target in ("cot", 3, -2)),
    ({"label_query": "coat", "label_target": 1}, "--label_target coat is label_query itself"),
    ({"label_target": "coat"}, "label_query -1 (unknown), which is not given"),
    (
        {"label_query": "coat", "label_target": "boot", "data_dir": Path("uncoated")},
        "--label_target 0 keeps",
        "label_query 1 coat",
        "none of the 4",
        "there are: 2 x 0 boot, 2 x 2 shirt",
    ),
    ({"chunk": 7, "chunks": 9}, "--chunk 7 of 9 is empty: none of the 6 selected pictures"),
    *(({"device": device}, f"--device {device}") for device in ("cuda", "mps")),
    ({"output_path": Path("model.safetensors/out")}, "model.safetensors/out"),
    ({"output_path": Path("/proc/out")}, "/proc/out"),
]
"""Flags, a path being of the shop's folder, and what the message names"""


def named(case) -> str:
    return " ".join(f"{flag}={value}" for flag, value in case[0].items())


@pytest.mark.parametrize("case", CONTRADICTIONS, ids=named)
def test_a_contradiction_is_refused_by_name_before_anything_is_opened(shop, case):
    changes, message = case
    nothing = {"data_dir": "/nowhere", "model_path": "/nowhere", "classifier_path": "/nowhere"}
    line = refusal(shop, **nothing, **changes)
    assert line.startswith("error: ") and message in line and not shop.output.exists()


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_what_cannot_be_used_is_refused_by_name_and_nothing_is_written(shop, case, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    changes, *messages = case
    changes = {flag: shop.folder / value if isinstance(value, Path) else value for flag, value in changes.items()}
    line = refusal(shop, **changes)
    assert line.startswith("error: ") and not shop.output.exists()
    assert [message for message in messages if message not in line] == []


def counted(workshop):
    """The pictures of the summary, and those that it counts as skipped."""
    summary = yaml.safe_load((workshop.results() / "summary.yaml").read_text())
    return summary["n"], summary["skipped"]


def finished(workshop):
    return {path.stem for path in (workshop.results() / "records").glob("*.json")}


def test_an_unreadable_picture_is_named_skipped_and_counted_and_the_run_goes_on(workshop):
    bad = workshop.data / "coat" / "001.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert workshop.exit_code() == 0
    assert err.getvalue().count(str(bad)) == 1 and "note: skipped: " in err.getvalue()
    assert "skipped: 1" in out.getvalue()
    assert counted(workshop) == (5, 1)


def test_a_skipped_picture_is_tried_again_when_it_is_mended(workshop):
    bad = workshop.data / "coat" / "001.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        workshop.run()
        bad.write_bytes(whole)
        workshop.run()
    assert counted(workshop) == (6, 0)


def test_if_no_picture_can_be_read_the_run_says_so(workshop):
    for path in workshop.data.rglob("*.png"):
        path.write_bytes(b"")
    assert refusal(workshop).startswith("error: no picture could be explained")


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
    attacked = run_module.attacked

    def failing(at, *others):
        batch = at.batch

        def poisoned(x, timesteps, classes=None):
            output = batch.task.denoiser(x, timesteps, classes).clone()
            output[[index == 3 for index in batch.indices]] = torch.nan
            return output

        poisonous = replace(batch, task=replace(batch.task, denoiser=poisoned))
        return attacked(replace(at, batch=poisonous), *others)

    monkeypatch.setattr(run_module, "attacked", failing)
    line = refusal(workshop)
    assert "picture 0000003: NaN or infinity in iteration 0 of the attack, at denoising step 1 of 2" in line
    assert finished(workshop) == {"0000000", "0000001"}
    assert counted(workshop) == (2, 0)


def test_weights_of_nan_are_named_with_picture_and_step(workshop):
    state = toy_unet().state_dict()
    state["out.2.bias"][:] = torch.nan
    torch.save(state, workshop.folder / "nan.pt")
    line = refusal(workshop, model_path=workshop.folder / "nan.pt")
    assert "picture 0000000, 0000001: NaN" in line and "at denoising step 1 of 2" in line


def test_an_interrupted_run_says_so_in_one_line_and_keeps_what_was_finished(workshop, monkeypatch):
    attack, calls = run_module.attacked, []

    def interrupted(*inputs, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attack(*inputs, **options)

    monkeypatch.setattr(run_module, "attacked", interrupted)
    assert refusal(workshop, code=130) == "interrupted; what was finished is kept, and the same command continues"
    assert finished(workshop) == {"0000000", "0000001"}
    assert counted(workshop) == (2, 0)


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


@pytest.mark.parametrize("error", [IsADirectoryError, NotADirectoryError, FileExistsError])
def test_what_lies_in_the_way_is_to_be_moved_away(error, capsys):
    def script():
        raise error(errno.EISDIR, "in the way", "some/path")

    assert exit_code(script) == 2
    assert re.fullmatch("error: some/path: in the way; a (file|folder) is wanted there: .*\n", capsys.readouterr().err)


def test_a_name_shows_its_line_breaks_and_terminal_codes_and_obeys_none(capsys, caplog):
    name = "bad\n\x1b[2Jname.png"

    def script():
        with showing_notices():
            notice(f"{name}: left out")
        raise ValueError(name)

    exit_code(script)
    assert capsys.readouterr().err == "note: bad\\n\\x1b[2Jname.png: left out\nerror: bad \\x1b[2Jname.png\n"


def test_an_error_of_our_own_is_not_hidden():
    def script():
        raise AssertionError("an invariant")

    with pytest.raises(AssertionError):
        exit_code(script)
