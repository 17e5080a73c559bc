"""Killed at any instant and continued with another split of the work, a run ends with the files of one that was not."""

import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.verify import verify
from tests.support.killing import PHASES, run_child
from tests.support.paths import MAIN
from tests.support.toys import Workshop, tree

PICTURES, ROUND = 6, 12  # of a folder; runs on it, at most
pytestmark = pytest.mark.slow
CHUNK = r"/c-\d+_\d+-"  # of a file of a chunk alone
IMPORTS = (30, 400, 900)  # modules after whose import a process is killed


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("kills"))


def files(output) -> dict[str, bytes]:
    """What must not depend on how the work was split."""
    return {name: data for name, data in tree(output).items() if not re.search(CHUNK, name)}


def child(shop, output, *, at=None, within=None, after=None, **settings):
    arguments = shop.arguments(cudnn_deterministic=True, output_path=output, **settings)
    return run_child(arguments, shop.folder / "printed.txt", at=at, within=within, after=after)


def any_split(rng, output) -> dict:
    """The run that makes the folder decides about the shape of the batches in all."""
    chunks, begun = rng.choice((1, 1, 2, 3)), (output / "Results/exp/config.yaml").exists()
    return {"chunks": chunks, "chunk": rng.randrange(chunks), "batch_size": rng.choice((1, 2, 3)) if begun else 2}


def any_moment(rng, points, seconds) -> dict:
    """A fault point or a time; more often early ones, since little may be left to do."""
    part, kind = rng.choice((1, 2, 4, 8)), rng.random()
    if kind < 0.5:
        return {"at": rng.randrange(1, points // part)}
    if kind < 0.8:
        return {"at": rng.randrange(1, 16), "within": rng.choice(("attack", "refinement", "summary"))}
    return {"after": rng.uniform(0, seconds / part)}


@pytest.fixture(scope="module")
def undisturbed(shop):
    """The tree, fault points and seconds of a run that nobody kills."""
    output, started = shop.folder / "undisturbed", time.monotonic()
    end = child(shop, output, batch_size=2)
    assert not end.killed
    return files(output), end.points, time.monotonic() - started


@pytest.mark.parametrize("share", [0.2, 0.5, 0.98])
def test_after_one_kill_at_a_fault_point_the_run_continues(shop, undisturbed, share):
    whole, points, _ = undisturbed
    output = shop.folder / f"one-{share}"
    assert child(shop, output, at=int(points * share), batch_size=2).killed
    assert not child(shop, output, batch_size=1).killed
    assert files(output) == whole


@pytest.mark.parametrize("wanted", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_killed_at_many_moments_and_continued_the_tree_is_that_of_the_undisturbed_run(shop, undisturbed, wanted):
    rng, landed = random.Random(7), Counter()
    whole, points, seconds = undisturbed
    rounds = 0
    while landed.total() < wanted:
        output, rounds = shop.folder / f"{wanted}-{rounds}", rounds + 1
        for _ in range(ROUND):
            end = child(shop, output, **any_moment(rng, points, seconds), **any_split(rng, output))
            landed[end.phase] += end.killed
            if len(list(output.glob("Results/exp/records/*.json"))) == PICTURES and not end.killed:
                break
        assert not child(shop, output, batch_size=2).killed
        assert files(output) == whole, f"round {rounds}"
        assert not list(output.rglob("*.tmp"))
    print(f"{rounds} folders; kills by phase: {dict(landed)}")
    assert all(landed[phase] for phase in PHASES)
    # A chunk that was killed between its two tables lacks the second one until the same split is run again.
    assert [found for found in verify(ResultFolder(output, "exp")) if not re.search(CHUNK, found.reason)] == []


@pytest.mark.parametrize("modules", IMPORTS)
def test_killed_while_importing_the_run_leaves_nothing(shop, modules):
    output = shop.folder / f"import-{modules}"
    command = [sys.executable, "-X", "importtime", MAIN, *shop.arguments(output_path=output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        imported = [process.stderr.readline() for _ in range(modules)]
        process.kill()
    assert process.returncode == -9 and not any(line.rstrip().endswith("core.runs.run") for line in imported)
    assert not output.exists()
