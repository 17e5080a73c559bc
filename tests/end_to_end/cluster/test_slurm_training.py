"""scripts/train-diffusion.sh on a real SLURM: an interrupted training ends with the weights of one that was not."""

import re

import numpy as np
import pytest

from ace_counterfactuals.core.cli import train_diffusion
from ace_counterfactuals.models.loading import load_weights
from tests.end_to_end.cluster.conftest import wait_for
from tests.support.toys import write_pictures

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

STEPS = 60
FLAGS = {"dataset": "Folder", "image_size": 16, "batch_size": 8, "num_channels": 32, "channel_mult": "1"}
FLAGS |= {"num_res_blocks": 1, "attention_resolutions": "", "diffusion_steps": 21, "lr_anneal_steps": STEPS}
FLAGS |= {"save_interval": STEPS, "log_interval": 1, "device": "cpu", "num_workers": 0}


class Training:
    """Long enough to be interrupted."""

    def __init__(self, folder):
        self.folder, self.data = folder, write_pictures(folder / "pictures", count=24, size=(16, 16))
        assert train_diffusion.main(self.flags("undisturbed")) == 0

    def flags(self, run, **changes):
        flags = {**FLAGS, "data_dir": self.data, "output_path": self.folder / run, **changes}
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))]

    def steps(self, run):
        """That are in the log."""
        log = self.folder / run / "log.csv"
        return len(re.findall(r"^\d", log.read_text(), re.M)) if log.exists() else 0

    def losses(self, run):
        """Step by step, of which none is there twice."""
        rows = [line.split(",") for line in (self.folder / run / "log.csv").read_text().splitlines()[1:]]
        assert [int(row[0]) for row in rows] == list(range(1, STEPS + 1))
        return np.array([float(row[1]) for row in rows])

    def weights(self, run):
        state = load_weights(next((self.folder / run).glob(f"ema_*_{STEPS:06d}.pt")))
        return np.concatenate([value.numpy().ravel() for value in state.values()])


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return Training(tmp_path_factory.mktemp("training"))


def interrupted(slurm, training, run, interrupt, **options):
    """The log of a job that is interrupted after some steps, once it has ended."""
    job = slurm.submit("train-diffusion.sh", *training.flags(run), **options)
    wait_for(lambda: training.steps(run) > 3, f"step 4 of {run}", log=lambda: slurm.log(job))
    interrupt(job)
    assert slurm.end(job) == ["COMPLETED"], slurm.log(job)
    assert slurm.shown(job)[0]["Restarts"] == "1" and training.steps(run) == STEPS
    assert "continuing from" in slurm.log(job)
    return slurm.log(job)


@pytest.mark.parametrize("tasks", [4, pytest.param(1, marks=pytest.mark.long)])
def test_slurm_training_that_is_requeued_ends_with_the_weights_of_one_run(slurm, training, tasks):
    requeue = lambda job: slurm.call("scontrol", "requeue", job)  # noqa: E731
    interrupted(slurm, training, f"requeued-{tasks}", requeue, options=(f"--ntasks-per-node={tasks}",))
    found, expected = training.losses(f"requeued-{tasks}"), training.losses("undisturbed")
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # gradients are summed in another order, and rounded
    if tasks == 1:
        assert np.array_equal(training.weights("requeued-1"), training.weights("undisturbed"))


@pytest.mark.long
def test_slurm_training_ahead_of_the_time_limit_is_queued_again(slurm, training):
    told = lambda job: slurm.call("scancel", "--batch", "--signal=USR1", job)  # noqa: E731
    log = interrupted(slurm, training, "limit", told)
    assert "SIGUSR1: stopping after this step, with a checkpoint" in log and "stopped ahead of the time limit" in log
    assert np.array_equal(training.weights("limit"), training.weights("undisturbed"))
