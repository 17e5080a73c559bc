"""A training that is stopped goes on by the same command, and ends with the files of one that was not."""

import errno
import json
import os
import re
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.settings import FlagError, from_dict
from ace_counterfactuals.core.base.signals import INTERRUPTED
from ace_counterfactuals.core.cli import train_classifier, train_diffusion
from ace_counterfactuals.core.training import checkpoints, diffusion, parallel
from ace_counterfactuals.core.training.checkpoints import Log, TrainingFolder
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.trainer import Trainer
from ace_counterfactuals.models.loading import load_weights, save_weights
from tests.support.toys import exit_code, tree
from tests.support.trainings import compared, plain

FLAGS = {"dataset": "Folder", "image_size": 8, "device": "cpu", "batch_size": 4, "num_channels": 32}
FLAGS |= {"channel_mult": "1", "num_res_blocks": 1, "attention_resolutions": "", "diffusion_steps": 21, "dropout": 0.1}
FLAGS |= {"save_interval": 4, "log_interval": 3, "lr_anneal_steps": 10, "ema_rate": 0.5}


SAMPLER = "loss-second-moment"


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(diffusion, "SAMPLES", 2)


class Killed(BaseException):
    """What nothing catches, as SIGKILL."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def train(pictures, output, **changes):
    flags = {**FLAGS, "data_dir": pictures, "output_path": output, **changes}
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    return exit_code(lambda: train_diffusion.main(words))


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """Function: changes -> the files of a training that nothing stops."""
    made = {}

    def files(**changes):
        key = tuple(changes.items())
        if key not in made:
            output = tmp_path_factory.mktemp("undisturbed")
            assert train(pictures, output, **changes) == 0
            made[key] = output
        return compared(made[key])

    return files


def stopping(monkeypatch, how, at):
    """``how`` is called within the step after which there are ``at``, once."""
    average, told = Trainer._average, []

    def averaging(trainer):
        average(trainer)
        if trainer.step + 1 == at and not told:
            told.append(at)
            how()

    monkeypatch.setattr(Trainer, "_average", averaging)


def signalled(number):
    return lambda: os.kill(os.getpid(), number)


def killed():
    raise Killed


@pytest.mark.parametrize(("at", "changes"), [(1, {}), (4, {}), (6, {"ema_fp16": True}), (10, {})])
def test_at_a_signal_a_checkpoint_is_written_from_which_the_same_command_goes_on_bit_for_bit(
    pictures, undisturbed, tmp_path, monkeypatch, capfd, at, changes
):
    stopping(monkeypatch, signalled(signal.SIGTERM), at)
    assert train(pictures, tmp_path, **changes) == 143
    printed = capfd.readouterr().err
    assert "SIGTERM: stopping after this step, with a checkpoint\n" in printed and printed.endswith(f"{INTERRUPTED}\n")
    assert (tmp_path / f"model{at:06d}.pt").exists()
    assert train(pictures, tmp_path, **changes) == 0
    assert f"continuing from {tmp_path}/model{at:06d}.pt" in capfd.readouterr().err
    assert compared(tmp_path) == undisturbed(**changes)


@pytest.mark.parametrize("at", [2, 7])
def test_killed_between_two_checkpoints_the_log_has_every_step_once(pictures, undisturbed, tmp_path, monkeypatch, at):
    stopping(monkeypatch, killed, at)
    with pytest.raises(Killed):
        train(pictures, tmp_path)
    assert train(pictures, tmp_path) == 0
    assert compared(tmp_path) == undisturbed()


def test_stopped_again_and_again_a_training_ends_nevertheless(pictures, undisturbed, tmp_path, monkeypatch):
    for at in (2, 3, 5, 9):
        with monkeypatch.context() as patch:
            stopping(patch, signalled(signal.SIGINT), at)
            assert train(pictures, tmp_path) == 130
    assert train(pictures, tmp_path) == 0
    assert compared(tmp_path) == undisturbed()


@pytest.mark.parametrize("changes", [{"ema_rate": "0.5,0.9", "ema_fp16": True}, {"schedule_sampler": SAMPLER}])
def test_all_that_a_checkpoint_holds_is_gone_on_from(pictures, undisturbed, tmp_path, monkeypatch, changes):
    changes |= {"diffusion_steps": 21, "init_step": 1, "lr_anneal_steps": 20, "save_interval": 20}
    with monkeypatch.context() as patch:
        stopping(patch, signalled(signal.SIGTERM), 14)
        assert train(pictures, tmp_path, **changes) == 143
    assert train(pictures, tmp_path, **changes) == 0
    assert compared(tmp_path) == undisturbed(**changes)


def test_every_so_many_seconds_there_is_a_checkpoint_in_between_which_leaves_no_trace(
    pictures, undisturbed, tmp_path, monkeypatch
):
    stopping(monkeypatch, killed, 7)
    with pytest.raises(Killed):
        train(pictures, tmp_path, save_seconds=1e-6)
    assert (tmp_path / "model000006.pt").exists() and not (tmp_path / "model000005.pt").exists()
    assert train(pictures, tmp_path, save_seconds=1e-6) == 0
    assert compared(tmp_path) == undisturbed()


@pytest.mark.parametrize(("step", "part"), [(1, "ema"), (4, "opt"), (6, "latest"), (6, "passing")])
def test_killed_within_a_checkpoint_at_any_of_its_files_nothing_of_it_stays(
    pictures, undisturbed, tmp_path, monkeypatch, part, step
):
    def dying(path, *rest, write):
        if part in path.name and folder_step[0] == step:
            killed()
        write(path, *rest)

    folder_step = [0]
    save = TrainingFolder.save

    def saving(folder, trainer, losses):
        folder_step[0] = trainer.step
        save(folder, trainer, losses)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFolder, "save", saving)
        patch.setattr(checkpoints, "save_weights", partial(dying, write=save_weights))
        patch.setattr(atomic, "write_json", partial(dying, write=atomic.write_json))
        with pytest.raises(Killed):
            train(pictures, tmp_path, save_seconds=1e-6)
    assert train(pictures, tmp_path) == 0
    assert compared(tmp_path) == undisturbed()


def test_of_old_checkpoints_so_many_are_kept_and_all_samples(pictures, tmp_path):
    assert train(pictures, tmp_path, lr_anneal_steps=6, save_interval=2, keep_checkpoints=2) == 0
    names = {f"{name}{step:06d}.pt" for name in ("ema_0.5_", "model", "opt") for step in (4, 6)}
    assert {path.name for path in tmp_path.glob("*.pt")} == names
    assert len(list(tmp_path.glob("samples*.png"))) == 3


def test_a_full_disk_is_told_and_the_checkpoint_before_it_is_gone_on_from(
    pictures, undisturbed, tmp_path, monkeypatch, capfd
):
    def full(path, tree, save=save_weights):
        if path.name == "opt000008.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(path, tree)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_weights", full)
        assert train(pictures, tmp_path) == 2
    assert "opt000008.pt: No space left on device" in capfd.readouterr().err.splitlines()[-1]
    assert json.loads((tmp_path / "latest.json").read_text())["step"] == 4
    assert train(pictures, tmp_path) == 0
    assert compared(tmp_path) == undisturbed()


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before_it(pictures, tmp_path, capfd):
    assert train(pictures, tmp_path, lr=1e20) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.match("error: the (loss|gradient) is .* at step [1-9]; try a smaller lr", last)
    assert not (tmp_path / "latest.json").exists()
    assert train(pictures, tmp_path, lr=1e20, save_interval=1) == 2
    step = json.loads((tmp_path / "latest.json").read_text())["step"]
    assert step >= 1 and f"at step {step};" in capfd.readouterr().err.splitlines()[-1]


def test_fewer_pictures_than_a_batch_has_are_told_of(pictures, tmp_path, capfd):
    assert train(pictures, tmp_path, batch_size=9, lr_anneal_steps=1) == 0
    assert "note: 6 pictures for a batch of 9: a step takes some of them more than once" in capfd.readouterr().err


def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(pictures, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(parallel, "size", lambda: 3)
    assert train(pictures, tmp_path) == 2
    assert "error: --batch_size 4: 3 processes share it evenly; give 3" in capfd.readouterr().err


def test_parts_of_weights_are_refused_where_torch_cannot_leave_them_to_cpus(pictures, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(parallel, "size", lambda: 2)
    monkeypatch.delattr(torch.cpu.Stream, "record_event", raising=False)
    assert train(pictures, tmp_path, dist="fsdp") == 2
    assert re.search("error: --dist fsdp: torch .* on GPUs alone; give ddp", capfd.readouterr().err)


def test_v_and_x_0_are_not_predicted_at_once(pictures, tmp_path, capfd):
    assert train(pictures, tmp_path, predict="v", predict_xstart=True) == 2
    assert "error: --predict v with predict_xstart True" in capfd.readouterr().err


def test_a_checkpoint_of_another_architecture_is_refused_by_the_flag(pictures, tmp_path, capfd):
    assert train(pictures, tmp_path, lr_anneal_steps=1) == 0
    resumed = {"resume_checkpoint": tmp_path / "model000001.pt", "num_channels": 64}
    assert train(pictures, tmp_path / "other", **resumed) == 2
    assert "--num_channels 64, but" in capfd.readouterr().err.splitlines()[-1]


def test_a_second_ctrl_c_stops_at_once_and_the_last_checkpoint_is_gone_on_from(
    pictures, undisturbed, tmp_path, monkeypatch
):
    stopping(monkeypatch, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)], 6)
    assert train(pictures, tmp_path) == 130
    assert not (tmp_path / "model000006.pt").exists()
    assert train(pictures, tmp_path) == 0
    assert compared(tmp_path) == undisturbed()


def test_killed_while_samples_are_drawn_they_are_drawn_by_the_next_run(pictures, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(diffusion, "sample", lambda *_, **__: killed())
        with pytest.raises(Killed):
            train(pictures, tmp_path)
    assert (tmp_path / "model000004.pt").exists() and not (tmp_path / "samples000004.png").exists()
    assert train(pictures, tmp_path) == 0
    assert compared(tmp_path) == undisturbed()


def test_a_command_that_resumes_a_checkpoint_of_another_folder_goes_on_from_its_own(
    pictures, undisturbed, tmp_path, monkeypatch
):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(pictures, first) == 0
    resumed = {"resume_checkpoint": first / "model000004.pt"}
    stopping(monkeypatch, signalled(signal.SIGTERM), 6)
    assert train(pictures, second, **resumed) == 143
    assert train(pictures, second, **resumed) == 0
    files = undisturbed()
    assert {name: data == files[name] for name, data in compared(second).items() if "0000" in name} == {
        name: True for name in files if "000008" in name or "000010" in name
    }


def test_a_finished_training_is_left_as_it_is_by_the_same_command(pictures, tmp_path):
    assert train(pictures, tmp_path) == 0
    before = tree(tmp_path)
    assert train(pictures, tmp_path) == 0
    assert tree(tmp_path) == before


def test_a_folder_that_is_older_than_a_flag_was_made_by_its_default(tmp_path):
    folder = TrainingFolder(from_dict(TrainDiffusionConfig, {"output_path": str(tmp_path)}))
    older = {name: value for name, value in folder.flags.items() if name != "csv_split"}
    (tmp_path / "latest.json").write_text(json.dumps({"flags": older, "step": 4, "losses": []}))
    assert folder.latest().step == 4
    other = TrainingFolder(from_dict(TrainDiffusionConfig, {"output_path": str(tmp_path), "csv_split": "part=train"}))
    assert other.latest() is None


def test_another_command_is_refused_with_what_it_has_otherwise(pictures, tmp_path, capfd):
    assert train(pictures, tmp_path) == 0
    before = tree(tmp_path)
    assert train(pictures, tmp_path, lr=0.5, seed=9) == 2
    assert f"--output_path {tmp_path}: has checkpoints made with another lr, seed;" in capfd.readouterr().err
    assert tree(tmp_path) == before


DAMAGED = [b"", b"5", b'{"flags": 1}', b"[" * 10000, b'{"flags": {}, "step": "x", "losses": []}']
DAMAGED += [b'{"flags": {}, "step": -1, "losses": []}', b'{"flags": {}, "step": 1, "losses": [{"loss": Infinity}]}']
DAMAGED += [b'{"flags": {}, "step": 1, "losses": 3}', b'{"flags": {}, "step": 1, "losses": [{"loss": "x"}]}']


@pytest.mark.parametrize("damage", DAMAGED)
def test_where_it_is_not_known_which_checkpoint_is_the_latest_a_folder_is_refused(tmp_path, damage):
    folder = TrainingFolder(from_dict(TrainDiffusionConfig, {"output_path": str(tmp_path)}))
    folder.flags = {}
    for name in ("model000004.pt", "latest.json"):
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(FlagError, match="has checkpoints; give one as resume_checkpoint"):
        folder.latest()


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_checkpoint_that_a_damaged_list_does_not_name_is_not_taken_for_a_passing_one(tmp_path, damage):
    for name, data in (("model000004.pt", b""), ("passing.json", damage)):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(FlagError, match="has checkpoints; give one as resume_checkpoint"):
        folder_of(tmp_path).latest()


def folder_of(tmp_path):
    return TrainingFolder(from_dict(TrainDiffusionConfig, {"output_path": str(tmp_path)}))


def test_two_trainings_do_not_work_in_one_folder(tmp_path):
    first, second, third = (folder_of(tmp_path).alone() for _ in range(3))
    with first, pytest.raises(FlagError, match="another training is at work there"), second:
        pass
    with third:
        pass


@pytest.mark.parametrize("name", ["latest.json", "passing.json", "log.csv"])
def test_a_pipe_in_a_strangers_training_folder_keeps_nobody_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert folder_of(tmp_path).latest() is None
    if name == "log.csv":
        with pytest.raises(ValueError, match="log.csv: is not a regular file"):
            Log(tmp_path / name, 0, 1)


def test_losses_of_another_training_that_a_stranger_left_are_dropped(tmp_path):
    with Log(tmp_path / "log.csv", 5, 3, [{"x": 1.0}, {}]) as log:
        assert log.add(6, {"loss": 0.75}) == {"loss": 0.75}


def test_an_optimiser_of_a_stranger_is_named(pictures, tmp_path, capfd):
    assert train(pictures, tmp_path) == 0
    save_weights(tmp_path / "opt000010.pt", {"step": 10})
    assert train(pictures, tmp_path, lr_anneal_steps=10) == 2
    said = "opt000010.pt: is no optimiser's state of this training"
    assert said in capfd.readouterr().err.splitlines()[-1]


def test_lines_of_the_log_that_are_no_steps_stay(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n3,0.5\n6,0.4\n9,0.")
    with Log(path, 5, 3, [{"loss": 0.25}]) as log:
        assert log.add(6, {"loss": 0.75}) == {"loss": 0.5}
    assert path.read_text() == "step,loss\n3,0.5\n6,0.500000,,,,,\n"


def train_classifier_of(pictures, file, **changes):
    flags = {"dataset": "Folder", "data_dir": pictures, "image_size": 8, "device": "cpu", "arch": "small-4"}
    flags |= {"epochs": 3, "batch_size": 2, "output_path": file, **changes}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return exit_code(lambda: train_classifier.main(words))


@pytest.fixture(scope="module")
def classes(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for i, path in enumerate(sorted(pictures.iterdir())):
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        shutil.copy(path, folder / f"class{i % 2}")
    return folder


def signalled_at(monkeypatch, step):
    """SIGTERM within this step of a classifier's training."""
    moved, taken = torch.optim.lr_scheduler.OneCycleLR.step, []

    def stepping(schedule, *inputs):
        taken.append(1)
        if len(taken) == step + 1:  # the first is of the schedule's beginning
            os.kill(os.getpid(), signal.SIGTERM)
        return moved(schedule, *inputs)

    monkeypatch.setattr(torch.optim.lr_scheduler.OneCycleLR, "step", stepping)


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_classifiers_training_goes_on_after_a_signal_to_the_same_file(classes, tmp_path, monkeypatch, capfd, step):
    assert train_classifier_of(classes, tmp_path / "whole.pt") == 0
    file = tmp_path / "stopped.pt"
    with monkeypatch.context() as patch:
        signalled_at(patch, step)
        assert train_classifier_of(classes, file) == 143
    assert not file.exists()
    assert train_classifier_of(classes, file) == 0
    assert f"continuing after step {step}\n" in capfd.readouterr().err
    assert plain(load_weights(file)) == plain(load_weights(tmp_path / "whole.pt"))
    names = {"whole.pt", "stopped.pt"}
    assert {path.name for path in tmp_path.iterdir()} == names | {f"{name}.training" for name in names}


def test_what_is_left_of_a_classifiers_training_with_other_settings_is_not_continued(
    classes, tmp_path, monkeypatch, capfd
):
    file = tmp_path / "stopped.pt"
    with monkeypatch.context() as patch:
        signalled_at(patch, 4)
        assert train_classifier_of(classes, file) == 143
    assert train_classifier_of(classes, file, lr=0.5) == 0
    assert f"{file}.unfinished: is of other settings; training begins anew" in capfd.readouterr().err


def test_a_folder_in_place_of_a_classifiers_file_is_refused_before_the_training(classes, tmp_path, capfd):
    assert train_classifier_of(classes, tmp_path) == 2
    assert f"--output_path {tmp_path}: is a folder; give the file" in capfd.readouterr().err


def test_a_damaged_rest_of_a_classifiers_training_is_named(classes, tmp_path, capfd):
    rest = tmp_path / "classifier.pt.unfinished"
    for damage in (b"torn", b""):
        rest.write_bytes(damage)
        assert train_classifier_of(classes, tmp_path / "classifier.pt") == 2
        assert f"--output_path {rest}: cannot be continued from" in capfd.readouterr().err.splitlines()[-1]
