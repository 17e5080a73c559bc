"""A training of several processes is the training of one: torchrun and mpiexec, DDP and FSDP, stops and deaths."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ace_counterfactuals.core.cli import train_diffusion
from ace_counterfactuals.models.loading import load_weights
from tests.support.paths import ROOT
from tests.support.ranks import WAYS, trained
from tests.support.toys import write_pictures

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("parallel")]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
MPIEXEC = ("mpiexec", "-n", "2", sys.executable)
LAUNCHERS = [
    pytest.param(TORCHRUN, id="torchrun"),
    pytest.param(
        MPIEXEC,
        id="mpiexec",
        marks=pytest.mark.skipif(shutil.which("mpiexec", path=PATH) is None, reason="pip install mpich mpi4py"),
    ),
]


def launch(*command, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": PATH, "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def alone():
    return trained("ddp") | {"losses of float32": trained("ddp", torch.float32)["losses"]}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_take_the_steps_of_one(launcher, alone, tmp_path):
    """Of a conditional network, with unreadable pictures, in microbatches, over a checkpoint, by DDP and by FSDP."""
    done = launch(*launcher, ROOT / "tests/support/ranks.py", tmp_path / "found.pt")
    assert done.returncode == 0, done.stderr
    found = load_weights(tmp_path / "found.pt")
    for way in WAYS:
        for losses, near in (("losses", 1e-10), ("losses of float32", 1e-4)):
            np.testing.assert_allclose(found[way][losses], alone[losses], rtol=near)
        for part in ("model", "0.5", "0.9"):
            for name, value in alone[part].items():
                torch.testing.assert_close(found[way][part][name], value, rtol=0, atol=1e-9)


FLAGS = {"dataset": "Folder", "image_size": 8, "device": "cpu", "batch_size": 4, "num_channels": 32, "num_workers": 0}
FLAGS |= {"channel_mult": "1", "num_res_blocks": 1, "attention_resolutions": "4", "diffusion_steps": 21, "seed": 5}
FLAGS |= {"save_interval": 2, "log_interval": 1, "lr_anneal_steps": 6}
# A training in which process 1 does ACT within the step after which there are 3, in its first life.
ACTING = """
import os, signal, sys, time
from ace_counterfactuals.core.cli.train_diffusion import main
from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.core.training import diffusion
from ace_counterfactuals.core.training.trainer import Trainer
diffusion.SAMPLES = 1
average = Trainer._average
def averaging(trainer):
    average(trainer)
    mine = os.environ.get("RANK", os.environ.get("PMI_RANK")) == "1"
    if mine and trainer.step == 2 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        ACT
Trainer._average = averaging
run_script(main)
"""


def words(folder, output):
    flags = {**FLAGS, "data_dir": folder, "output_path": output}
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def losses(pictures, tmp_path_factory):
    """Function: the lines of log.csv of a training of one process are those of this one, up to rounding."""
    output = tmp_path_factory.mktemp("alone")
    assert train_diffusion.main(words(pictures, output)) == 0

    def compare(folder):
        one, other = (np.genfromtxt(path / "log.csv", delimiter=",", skip_header=1) for path in (output, folder))
        assert one.shape == other.shape == (6, 8)
        np.testing.assert_allclose(other[:, :4], one[:, :4], rtol=1e-4)

    return compare


def acting(tmp_path, act):
    script = tmp_path / "act.py"
    script.write_text(ACTING.replace("ACT", act))
    return script


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_another_number_of_them_goes_on(
    pictures, losses, tmp_path
):
    output = tmp_path / "out"
    script = acting(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)")
    done = launch(*TORCHRUN, script, *words(pictures, output), "--dist", WAYS[-1])
    assert done.returncode != 0 and "SIGTERM: stopping after this step, with a checkpoint" in done.stderr
    assert (output / "model000003.pt").exists()
    assert train_diffusion.main(words(pictures, output)) == 0
    losses(output)


def test_after_the_death_of_a_process_torchrun_begins_again_from_the_last_checkpoint(pictures, losses, tmp_path):
    output = tmp_path / "out"
    script = acting(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    done = launch(*TORCHRUN, "--max-restarts", "1", script, *words(pictures, output))
    assert done.returncode == 0, done.stderr
    assert f"continuing from {output}/model000002.pt" in done.stderr and "strides" not in done.stderr
    losses(output)


@LAUNCHERS[1].marks[0]
def test_a_process_that_fails_ends_the_others_with_its_error_shown(pictures, tmp_path):
    script = acting(tmp_path, "raise OSError('the disk is gone')")
    begin = time.monotonic()
    done = launch(*MPIEXEC, script, *words(pictures, tmp_path / "out"))
    assert done.returncode != 0 and "error: the disk is gone" in done.stderr
    assert time.monotonic() - begin < 60
