"""--chunk auto under real launchers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ace_counterfactuals.core.cli.explain import main
from tests.end_to_end.cluster.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def launch(*command):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done


def explain(experiment, name):
    return str(ROOT / "main.py"), *experiment.flags_of(name, 6, chunk="auto")


def assert_merged(experiment, name, chunks):
    root = experiment.root(name)
    assert all((root / f"c-{chunk}_{chunks}-summary.yaml").exists() for chunk in range(chunks))
    assert main(experiment.flags_of(name, 6, merge_chunks=True)) == 0
    assert experiment.tree(name) == experiment.undisturbed(6)


needs_mpiexec = pytest.mark.skipif(
    shutil.which("mpiexec", path=PATH) is None, reason="mpiexec is not installed; pip install mpich"
)


@needs_mpiexec
def test_mpi_ranks_split_the_pictures(experiment):
    launch("mpiexec", "-n", "3", sys.executable, *explain(experiment, "mpi"))
    assert_merged(experiment, "mpi", 3)


@needs_mpiexec
def test_mpi_ranks_without_known_variables_are_asked_by_mpi4py(experiment):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed; pip install -e .[mpi]")
    code = "import sys; from ace_counterfactuals.core.cli.launchers import part; sys.stdout.write(f'{part(1, {})}\\n')"
    found = launch("mpiexec", "-n", "3", sys.executable, "-c", code).stdout
    assert sorted(found.splitlines()) == ["(0, 3)", "(1, 3)", "(2, 3)"]


def test_torchrun_ranks_split_the_pictures(experiment):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    launch(*torchrun, *explain(experiment, "torchrun"))
    assert_merged(experiment, "torchrun", 2)
