"""scripts/slurm-*.sh with stand-ins for SLURM and Python that write down how they were called."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RECORD = '#!/bin/bash\n{ printf "%s" "$(basename "$0")"; printf " %s" "$@"; echo; } >> "$CALLS"\n'
TASK = {"JOB_ID": 7, "JOB_PARTITION": "gpu", "JOB_ACCOUNT": "lab"}
ARRAY = {f"ARRAY_{name}": value for name, value in {"JOB_ID": 5, "TASK_ID": 0, "TASK_MIN": 0}.items()}


class Node:
    """Runs a script as a job would, and knows what it called."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, folder / "calls"
        (folder / "bin").mkdir()
        for name in ("python", "sbatch", "scontrol", "squeue", "srun"):
            self.stand_in(name, RECORD)

    def stand_in(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, script: str, *words: str, slurm=TASK | ARRAY, **environment: str) -> subprocess.Popen:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "ACE_", "PYTHON"))}
        variables = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls)}
        command = ["bash", f"scripts/{script}", *words]
        environment = clean | variables | path | environment
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    def run(self, script: str, *words: str, code: int = 0, **more) -> list[str]:
        """Every call that was made, in order."""
        process = self.start(script, *words, **more)
        self.errors = process.communicate(timeout=30)[1]
        assert process.returncode == code, self.errors
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_the_first_task_queues_the_merge_with_its_words_and_runs_its_chunk(node):
    asked, queued, ran = node.run("slurm-array.sh", "--seed", "1", "--", "--plots", "True")
    assert asked.startswith("squeue")
    assert queued == (
        "sbatch --job-name=ace-merge-5 --dependency=afterok:5 --kill-on-invalid-dep=yes --partition=gpu "
        "--account=lab scripts/slurm-merge.sh --seed 1 -- --plots True"
    )
    assert ran == "python main.py --seed 1 --chunk auto"


def test_another_task_queues_no_merge(node):
    assert node.run("slurm-array.sh", slurm=TASK | ARRAY | {"ARRAY_TASK_ID": 3}) == ["python main.py --chunk auto"]


def test_a_requeued_first_task_finds_its_merge_queued(node):
    node.stand_in("squeue", "#!/bin/bash\necho 8\n")
    assert node.run("slurm-array.sh") == ["python main.py --chunk auto"]


def test_a_node_that_may_not_submit_says_what_to_submit(node):
    node.stand_in("sbatch", "#!/bin/bash\nexit 1\n")
    assert node.run("slurm-array.sh")[-1] == "python main.py --chunk auto"
    assert "sbatch scripts/slurm-merge.sh with the same flags" in node.errors


def test_the_merge_is_evaluated_where_the_flags_put_it(node):
    words = ("--output_path", "out", "--exp_name=smile", "--", "--plots", "True")
    merged, evaluated = node.run("slurm-merge.sh", *words, slurm=TASK)
    assert merged == "python main.py --output_path out --exp_name=smile --merge_chunks True"
    assert evaluated == "python evaluate.py --output_path out --exp_name smile --plots True"


def test_a_node_job_starts_its_processes_and_merges(node):
    ran, merged = node.run("slurm-node.sh", "--seed", "1", slurm=TASK)[:2]
    assert ran == "srun --kill-on-bad-exit=0 python main.py --seed 1 --chunk auto"
    assert merged == "python main.py --seed 1 --merge_chunks True"


def test_another_launcher_takes_the_place_of_srun(node):
    node.stand_in("mpiexec", RECORD)
    ran = node.run("slurm-node.sh", "--seed", "1", slurm=TASK, ACE_LAUNCH="mpiexec -n 4")[0]
    assert ran == "mpiexec -n 4 python main.py --seed 1 --chunk auto"


def test_a_training_is_started_in_each_task_by_any_launcher(node):
    assert node.run("train-diffusion.sh", "--lr", "1", slurm=TASK) == [
        "srun --kill-on-bad-exit=1 python train_diffusion.py --lr 1"
    ]
    node.stand_in("torchrun", RECORD)
    torchrun = "torchrun --no-python --nproc-per-node 4"
    words = ("train_classifier.py", "--lr", "1")
    ran = node.run("train-diffusion.sh", *words, slurm=TASK, ACE_LAUNCH=torchrun)[-1]
    assert ran == f"{torchrun} python train_classifier.py --lr 1"


def test_the_script_of_a_data_set_may_be_the_program(node, tmp_path):
    (tmp_path / "celeba.sh").write_text(RECORD)
    script = str(tmp_path / "celeba.sh")
    assert node.run("slurm-array.sh", script, "--data", "d")[-1] == "celeba.sh --data d --chunk auto"
    assert node.run("slurm-merge.sh", script, "--data", "d")[-1] == "celeba.sh --data d --merge_chunks True"


def test_outside_a_job_the_script_says_how_to_submit_it(node):
    assert node.run("slurm-array.sh", code=2, slurm={}) == []
    assert node.errors == "error: this runs in a job: sbatch scripts/slurm-array.sh ... or slurm-node.sh\n"


def test_a_program_that_is_not_there_is_named(node):
    assert node.run("slurm-array.sh", "man.py", code=2) == []
    assert "error: man.py: not in" in node.errors


def test_scratch_holds_one_copy_of_the_data_which_is_read_there(node, tmp_path):
    data, scratch = tmp_path / "data", tmp_path / "node disk"
    data.mkdir()
    (data / "a.png").write_bytes(b"a")
    for _ in range(2):
        ran = node.run("slurm-array.sh", "--data_dir", str(data), ACE_SCRATCH=str(scratch))[-1]
    (copy,) = (path for path in scratch.iterdir() if path.is_dir())
    assert (copy / "a.png").read_bytes() == b"a"
    assert ran == f"python main.py --data_dir {data} --data_dir {copy} --chunk auto"


def test_scratch_on_several_nodes_is_refused(node):
    slurm = TASK | {"JOB_NUM_NODES": 2}
    assert node.run("slurm-node.sh", "--data_dir", "d", code=2, slurm=slurm, ACE_SCRATCH="/tmp") == []
    assert node.errors == "error: ACE_SCRATCH is for jobs of one node\n"


STOP = 'trap "echo stopped >> $CALLS; exit 143" TERM\n'
SLOW_TO_STOP = RECORD.replace("\n", f"\n{STOP}", 1) + "for i in {1..300}; do sleep 0.1; done\n"


def start_program(node, text: str) -> subprocess.Popen:
    """A job whose program listens to signals and has said so."""
    node.stand_in("python", text)
    process = node.start("slurm-array.sh")
    while not (node.calls.exists() and "python main.py --chunk auto\n" in node.calls.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGUSR1, ["stopped", "scontrol requeue 7"]), (signal.SIGTERM, ["stopped"])],
    ids=["ahead of the limit", "told to end"],
)
def test_a_signal_stops_the_program_and_the_limit_alone_queues_it_again(node, number, after):
    process = start_program(node, SLOW_TO_STOP)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert node.calls.read_text().splitlines()[3:] == after


def test_a_program_that_ends_well_after_the_signal_is_not_queued_again(node):
    process = start_program(node, SLOW_TO_STOP.replace("exit 143", "exit 0"))
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert node.calls.read_text().splitlines()[3:] == ["stopped"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = [*ROOT.glob("scripts/slurm*.sh"), ROOT / "tests/end_to_end/cluster/slurm-local.sh"]
    subprocess.run(["shellcheck", *map(str, scripts)], check=True)
