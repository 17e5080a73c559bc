"""A one-node SLURM for the tests that want one, and what they submit to it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.cluster.experiment import Experiment
from tests.support.paths import ROOT

LOCAL = ROOT / "tests/end_to_end/cluster/slurm-local.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable, what: str, seconds: float = 300, log: Callable[[], str] = str):
    """The first true value of ``condition()``; a test that waits too long says for what, with the log of then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    pytest.fail(f"waited {seconds:.0f} s for {what}\n{log()}")


class Cluster:
    """Submits the scripts of this repository and follows the jobs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHON": sys.executable,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SBATCH_TIMELIMIT": "10",
            "SBATCH_OUTPUT": f"{folder}/%A_%a.log",
        }

    def call(self, *command: str, check: bool = True, **environment: str) -> str:
        """Output of a command of SLURM."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment | environment, cwd=ROOT, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, script: str, *words: str, options: tuple[str, ...] = (), **environment: str) -> str:
        """Job id of a script in scripts/, run from the root of the repository."""
        command = ("sbatch", "--parsable", "--cpus-per-task=1", *options, f"scripts/{script}", *words)
        return self.call(*command, **environment).strip()

    def shown(self, job: str) -> list[dict[str, str]]:
        """What scontrol shows, a dictionary a task."""
        text = self.call("scontrol", "--oneliner", "show", "job", job)
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines()]

    def states(self, job: str) -> list[str]:
        return sorted(task["JobState"] for task in self.shown(job))

    def wait_until_running(self, job: str, restarts: int) -> None:
        """Until a job of one task has been started again so many times."""
        wanted = {"JobState": "RUNNING", "Restarts": str(restarts)}
        wait_for(lambda: wanted.items() <= self.shown(job)[0].items(), f"restart {restarts} of job {job}")

    def merge_of(self, job: str) -> str:
        """Id of the merge that the first task of an array has queued."""
        name = f"--name=ace-merge-{job}"
        find = lambda: self.call("squeue", "--noheader", "--states=all", "--format=%i", name).strip()  # noqa: E731
        return wait_for(find, f"the merge of job {job}")

    def end(self, job: str, seconds: float = 600) -> list[str]:
        """The states of a job's tasks once all have ended."""
        active = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING", "SUSPENDED"}
        wait_for(lambda: not active & set(self.states(job)), f"the end of job {job}", seconds, lambda: self.log(job))
        return self.states(job)

    def log(self, job: str) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob(f"{job}_*.log")))


@pytest.fixture(scope="session")
def slurm():
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed; apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid() != 0:
        pytest.skip("slurm-local.sh starts its daemons as root")
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="ace-slurm-")))  # munged wants no folder of pytest's
    controller, node = free_ports(2)
    ports = {"SLURM_LOCAL_CTLD_PORT": str(controller), "SLURM_LOCAL_SLURMD_PORT": str(node)}
    environment = cluster.environment | ports | {"SLURM_LOCAL_DIR": str(cluster.folder)}
    # It reads until pytest closes its end, or dies.
    stop = 'read -r _; bash "$0" stop; rm -rf "$SLURM_LOCAL_DIR"'
    keeper = subprocess.Popen(
        ["bash", "-c", stop, str(LOCAL)], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        subprocess.run(["bash", str(LOCAL), "start"], env=environment, check=True)
        yield cluster
    finally:
        keeper.stdin.close()
        keeper.wait()


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    return Experiment(tmp_path_factory.mktemp("experiment"))
