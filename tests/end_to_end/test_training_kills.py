"""Killed and stopped at any instant, a training gives the losses and weights of one that was not, step by step."""

import os
import random
import signal
import time
from collections import Counter

import pytest

from ace_counterfactuals.core.cli import train_diffusion
from ace_counterfactuals.core.training import diffusion
from tests.support.toys import exit_code, write_pictures
from tests.support.trainings import compared

FLAGS = {"dataset": "Folder", "image_size": 8, "device": "cpu", "batch_size": 4, "num_channels": 32, "num_workers": 0}
FLAGS |= {"channel_mult": "1", "num_res_blocks": 1, "attention_resolutions": "4", "diffusion_steps": 21, "dropout": 0.1}
FLAGS |= {"save_interval": 40, "log_interval": 1, "lr_anneal_steps": 80, "ema_rate": "0.5,0.9", "init_step": 2}
FLAGS |= {"schedule_sampler": "loss-second-moment", "save_seconds": 0.2}
ROUND = 12  # kills of a folder at most


def words(pictures, output):
    flags = {**FLAGS, "data_dir": pictures, "output_path": output}
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


def child(command, printed, seconds, number) -> bool:
    """Whether a training in a process of its own was there to get the signal after so many seconds."""
    if (pid := os.fork()) == 0:
        file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = 99
        try:
            code = exit_code(lambda: train_diffusion.main(command))
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(pid, number)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 143, 130, -signal.SIGKILL), printed.read_text()[-2000:]
    return status != 0


@pytest.mark.parametrize("wanted", [pytest.param(4, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.long)])
def test_killed_and_stopped_at_many_moments_losses_and_weights_are_those_of_an_undisturbed_training(
    wanted, tmp_path, monkeypatch
):
    monkeypatch.setattr(diffusion, "SAMPLES", 1)
    pictures, rng, landed = write_pictures(tmp_path / "pictures"), random.Random(3), Counter()
    begin = time.monotonic()
    assert exit_code(lambda: train_diffusion.main(words(pictures, tmp_path / "undisturbed"))) == 0
    seconds, whole, rounds = time.monotonic() - begin, compared(tmp_path / "undisturbed"), 0
    while landed.total() < wanted:
        output, rounds = tmp_path / f"{rounds}", rounds + 1
        for _ in range(ROUND):
            number = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
            if not child(words(pictures, output), tmp_path / "printed.txt", rng.uniform(0, seconds / 3), number):
                break
            landed[number] += 1
        assert exit_code(lambda to=output: train_diffusion.main(words(pictures, to))) == 0
        assert compared(output) == whole
    assert wanted < 10 or len(landed) == 3
