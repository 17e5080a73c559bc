"""scripts/slurm-*.sh on a real SLURM: however a run is split and interrupted, it ends with the tree of one run."""

import pytest

from tests.end_to_end.cluster.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


def submit_array(slurm, experiment, name, count, tasks, *options, words=(), **environment):
    arguments = experiment.flags_of(name, count)
    return slurm.submit("slurm-array.sh", *arguments, *words, options=(f"--array={tasks}", *options), **environment)


def wait_for_pictures(slurm, experiment, name, more_than, job):
    enough = lambda: experiment.finished(name) > more_than  # noqa: E731
    wait_for(enough, f"picture {more_than + 1} of {name}", log=lambda: slurm.log(job))


def assert_merged(slurm, experiment, name, count, job):
    merge = slurm.merge_of(job)
    assert slurm.end(merge) == ["COMPLETED"], slurm.log(merge)
    assert experiment.tree(name) == experiment.undisturbed(count)


def test_slurm_array_requeued_in_mid_run_is_merged_to_the_tree_of_one_run(slurm, experiment):
    job = submit_array(slurm, experiment, "array", 9, "0-2")
    wait_for_pictures(slurm, experiment, "array", 1, job)
    slurm.call("scontrol", "requeue", job)
    assert slurm.end(job) == ["COMPLETED"] * 3, slurm.log(job)
    assert {task["Restarts"] for task in slurm.shown(job)} == {"1"}
    assert_merged(slurm, experiment, "array", 9, job)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.long)])
def test_slurm_job_requeued_many_times_ends_with_the_tree_of_one_run(slurm, experiment, times):
    name, count = f"requeued-{times}", 6 + 3 * times
    job = submit_array(slurm, experiment, name, count, "0")
    for restarts in range(times):
        slurm.wait_until_running(job, restarts)
        wait_for_pictures(slurm, experiment, name, experiment.finished(name), job)
        assert slurm.states(job) == ["RUNNING"], "too few pictures to be interrupted so often"
        slurm.call("scontrol", "requeue", job)
    assert slurm.end(job) == ["COMPLETED"], slurm.log(job)
    assert slurm.shown(job)[0]["Restarts"] == str(times)
    assert_merged(slurm, experiment, name, count, job)


def test_slurm_task_that_was_told_to_end_is_repeated_alone(slurm, experiment):
    job = submit_array(slurm, experiment, "alone", 9, "0-2")
    wait_for_pictures(slurm, experiment, "alone", 1, job)
    slurm.call("scancel", "--batch", "--signal=TERM", f"{job}_1")
    assert slurm.end(job) == ["COMPLETED", "COMPLETED", "FAILED"], slurm.log(job)
    assert {task["ExitCode"] for task in slurm.shown(job)} == {"0:0", "143:0"}
    assert slurm.end(slurm.merge_of(job)) == ["CANCELLED"]
    again = submit_array(slurm, experiment, "alone", 9, "1", words=("--chunks", "3"))
    assert slurm.end(again) == ["COMPLETED"], slurm.log(again)
    assert_merged(slurm, experiment, "alone", 9, again)


def test_slurm_signal_ahead_of_the_limit_queues_the_task_again(slurm, experiment):
    job = submit_array(slurm, experiment, "signal", 9, "0")
    wait_for_pictures(slurm, experiment, "signal", 1, job)
    slurm.call("scancel", "--batch", "--signal=USR1", f"{job}_0")
    assert slurm.end(job) == ["COMPLETED"], slurm.log(job)
    assert slurm.shown(job)[0]["Restarts"] == "1"
    assert "stopped ahead of the time limit" in slurm.log(job)
    assert_merged(slurm, experiment, "signal", 9, job)


def test_slurm_time_limit_stops_what_runs_and_queues_the_task_again(slurm, tmp_path):
    """The shortest limit of SLURM is a minute, at whose start the signal is due: it comes within half of it."""
    program = tmp_path / "until-told.sh"
    program.write_text('[ -n "${SLURM_RESTART_COUNT:-}" ] && exit; trap "exit 143" TERM; sleep 59 & wait\n')
    options = ("--array=0", "--time=1", "--signal=B:USR1@60")
    job = slurm.submit("slurm-array.sh", str(program), options=options)
    assert slurm.end(job) == ["COMPLETED"], slurm.log(job)
    assert slurm.shown(job)[0]["Restarts"] == "1"
    assert "stopped ahead of the time limit" in slurm.log(job)
    assert slurm.end(slurm.merge_of(job)) == ["COMPLETED"]


def test_slurm_node_job_is_queued_again_and_merges_what_its_tasks_did(slurm, experiment):
    arguments = experiment.flags_of("node", 9)
    job = slurm.submit("slurm-node.sh", *arguments, options=("--ntasks-per-node=2", "--gres=gpu:2"))
    wait_for_pictures(slurm, experiment, "node", 0, job)
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    assert slurm.end(job) == ["COMPLETED"], slurm.log(job)
    assert slurm.shown(job)[0]["Restarts"] == "1"
    assert "SIGUSR1: stopping after the pictures in hand" in slurm.log(job)
    assert experiment.tree("node") == experiment.undisturbed(9)
    assert (experiment.root("node") / "c-1_2-summary.yaml").exists()
