"""--batch_size auto under a limit of the address space, of random size: it ends well, or says that nothing fits."""

import os
import random
import re
import resource
import subprocess
import sys

import pytest

from ace_counterfactuals.core.runs.plan import LOOSE, SCRATCH
from ace_counterfactuals.models.loading import save_weights
from tests.support.paths import ROOT
from tests.support.toys import UNET, Workshop, toy_unet, write_pictures

SIDE, PICTURES = 64, 3
WIDE = {"image_size": SIDE, "num_channels": 64}
WAYS = [{"attack_filter": "one-step"}, {"attack_joint_checkpoint": True}]
SAYS_BEFOREHAND = ("not even one picture fits", "too little memory even to plan")
GIB = 2**30
TAKEN = """
import ace_counterfactuals.core.runs.run, torch._subclasses.fake_tensor
print(int(open("/proc/self/statm").read().split()[0]))
"""
PEAK = """
import sys, torch
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.preflight.model import peak_memory, start_memory
from ace_counterfactuals.core.runs import run
complete, cpu = run.complete, torch.device("cpu")
def measured(work):
    before = start_memory(cpu)
    complete(work)
    print("peak", peak_memory(cpu) - before)
run.complete = measured
main(sys.argv[1:])
"""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Whose run takes about 200 MiB for each of its pictures."""
    workshop = Workshop(tmp_path_factory.mktemp("shop"))
    write_pictures(workshop.folder / "large", PICTURES, (SIDE, SIDE))
    workshop.data = workshop.folder / "large"
    save_weights(workshop.model, toy_unet(**UNET | WIDE).state_dict())
    return workshop


@pytest.fixture(scope="module")
def taken():
    """Bytes of address space of the loaded program."""
    command = [sys.executable, "-c", TAKEN]
    pages = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return int(pages) * resource.getpagesize()


def outcome(shop, name, limit):
    """Whether all pictures were explained; otherwise it was said beforehand that they cannot be."""
    settings = WIDE | {"batch_size": "auto", "sampling_time_fraction": 0.5, "num_workers": 1, "exp_name": name}
    command = [sys.executable, "main.py", *shop.arguments(**settings)]
    run = subprocess.run(
        ["bash", "-c", f'ulimit -v {limit // 1024}; exec "$@"', "-", *command],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    said = f"limit {limit / GIB:.2f} GiB: {run.stderr[-2000:]}"
    written = len(list(shop.results(name).glob("records/*")))
    if run.returncode == 2:
        assert any(words in run.stderr for words in SAYS_BEFOREHAND) and not written, said
    else:
        assert (run.returncode, written) == (0, PICTURES), said
    return run.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("more", "fits"), [(0.6, False), (1.7, True), (2.5, True)])
def test_a_run_under_a_limit_ends_well_or_says_that_nothing_fits(shop, taken, more, fits):
    assert outcome(shop, f"limit-{more}", int(taken + more * GIB)) == fits


@pytest.mark.long
def test_twenty_runs_under_random_limits_end_well_or_say_that_nothing_fits(shop, taken):
    limits = random.Random(0)
    ends = [outcome(shop, f"random-{i}", int(taken + limits.uniform(0.8, 2.6) * GIB)) for i in range(20)]
    assert {*ends} == {True, False}


def planned_and_taken(shop, way, environment):
    """Bytes of the plan, and of the most that the run held beyond what it had loaded."""
    name = f"peak-{'-'.join([*way, *environment])}"
    settings = WIDE | way | {"batch_size": "auto", "sampling_time_fraction": 0.3, "exp_name": name}
    command = [sys.executable, "-c", PEAK, *shop.arguments(**settings)]
    within = ENVIRONMENT | environment
    run = subprocess.run(command, env=within, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(re.search(r"about (\d+) MiB of", run.stderr)[1]) * 2**20, int(re.search(r"peak (\d+)", run.stdout)[1])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_run_holds_what_is_planned_in_tensors_where_all_that_is_freed_is_handed_back(shop, way):
    planned, taken = planned_and_taken(shop, way, {"MALLOC_MMAP_THRESHOLD_": "131072"})
    tensors = (planned - SCRATCH) / LOOSE
    assert 0.9 * tensors < taken < tensors + SCRATCH


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_peak_of_a_run_above_loading_is_at_most_30_percent_above_the_plan(shop, way):
    planned, taken = planned_and_taken(shop, way, {})
    assert taken < 1.3 * planned
