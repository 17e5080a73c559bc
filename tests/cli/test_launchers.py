"""--chunk auto: which part of the work is mine, by the variables that each launcher sets."""

import os
import sys
import types

import pytest
import torch

from ace_counterfactuals.core.base.notices import RANKS, local_rank
from ace_counterfactuals.core.base.runtime import choose_device
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import launchers
from ace_counterfactuals.core.cli.launchers import part, place
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.toys import Workshop

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
MVAPICH = {"MV2_COMM_WORLD_RANK": "5", "MV2_COMM_WORLD_SIZE": "8", "MV2_COMM_WORLD_LOCAL_RANK": "1"}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}
LAUNCHERS = {"torchrun": TORCHRUN, "openmpi": OPEN_MPI, "mvapich": MVAPICH, "mpich": MPICH, "srun": SRUN}


def array(task: int, low: int = 0, high: int = 3, step: int = 1, count: int | None = None) -> dict[str, str]:
    count = count or (high - low) // step + 1
    values = {"ID": task, "COUNT": count, "MIN": low, "MAX": high, "STEP": step}
    return BATCH | {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.fixture(autouse=True)
def without_mpi4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)


@pytest.fixture
def started_by(monkeypatch):
    def start(variables: dict[str, str]) -> None:
        for names in (*RANKS, launchers.ARRAY):
            for name in names:
                monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_tells_rank_and_number_of_ranks(name):
    assert part(1, LAUNCHERS[name]) == part(8, LAUNCHERS[name]) == (5, 8)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_tells_the_rank_on_the_node(name, started_by):
    started_by(LAUNCHERS[name])
    assert local_rank() == 1


def test_a_batch_script_is_no_rank(started_by):
    started_by(BATCH)
    assert local_rank() is None
    assert part(1, os.environ) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "visible", "index"),
    [(SRUN, 4, 1), (SRUN | {"SLURM_LOCALID": "5"}, 4, 1), (SRUN, 1, 0), (BATCH, 4, 3)],
    ids=["one each", "more ranks than GPUs", "one visible to each", "batch script"],
)
def test_the_rank_on_the_node_picks_the_gpu_where_there_is_one(variables, visible, index, started_by, monkeypatch):
    started_by(variables)
    for name, value in {"is_available": True, "device_count": visible, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    assert choose_device("cuda", gpu=3 if variables is BATCH else 0) == torch.device("cuda", index)


@pytest.mark.parametrize("inner", [TORCHRUN, OPEN_MPI, MPICH])
def test_a_launcher_that_srun_started_goes_before_srun(inner):
    proxy = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert part(1, proxy | inner) == (5, 8)


def test_srun_with_pmi2_is_complete_by_srun_alone(started_by):
    started_by(SRUN | {"PMI_RANK": "5", "PMI_SIZE": "8"})
    assert (part(1, os.environ), local_rank()) == ((5, 8), 1)


@pytest.mark.parametrize(("low", "high", "step"), [(0, 3, 1), (1, 4, 1), (10, 40, 10)])
def test_an_array_is_split_by_the_place_of_its_tasks(low, high, step):
    found = [part(1, array(task, low, high, step)) for task in range(low, high + 1, step)]
    assert found == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_ranks_in_an_array_give_every_chunk_once():
    ranks = [{"SLURM_PROCID": str(i), "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": str(i)} for i in range(3)]
    found = [part(chunks, array(task) | rank) for chunks in (1, 12) for task in range(4) for rank in ranks]
    assert found == [(chunk, 12) for chunk in range(12)] * 2


def test_a_task_repeated_alone_is_the_chunk_it_was():
    assert part(8, array(3, high=7)) == part(8, array(3, low=3, high=3)) == (3, 8)


def test_tasks_repeated_as_a_list_are_the_chunks_they_were():
    assert [part(8, array(task, low=2, high=5, count=2)) for task in (2, 5)] == [(2, 8), (5, 8)]


THREE_RANKS = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "0"}
REFUSED = {
    "a task repeated alone, of how many is unknown": (1, array(3, low=3, high=3), "chunk"),
    "tasks repeated in a list, of how many is unknown": (1, array(5, low=2, high=5, count=2), "chunk"),
    "a task beyond the chunks": (8, array(8, low=1, high=8), "chunks"),
    "ranks that do not divide the chunks": (8, array(0) | THREE_RANKS, "chunks"),
    "more ranks than chunks": (6, SRUN, "chunks"),
    "chunks without a launcher": (6, {}, "chunks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_tell_a_part_is_refused(case):
    chunks, variables, field = REFUSED[case]
    with pytest.raises(FlagError) as caught:
        part(chunks, variables)
    assert caught.value.field == field


def test_mpi4py_is_asked_where_no_variable_is_known(monkeypatch):
    world = types.SimpleNamespace(Get_rank=lambda: 2, Get_size=lambda: 3)
    mpi = types.SimpleNamespace(COMM_WORLD=world)
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(MPI=mpi))
    assert part(1, {}) == (2, 3)
    assert part(1, array(1)) == (1, 4), "a singleton in a batch script starts no MPI"


def test_auto_becomes_numbers_and_says_which(started_by, notes):
    started_by(SRUN)
    placed = place(parse(MainConfig, "", ["--chunk", "auto"])).run
    assert (placed.chunk, placed.chunks) == (5, 8)
    assert notes.messages == ["--chunk auto is chunk 5 of 8"]


def test_auto_without_a_launcher_is_the_whole_set(started_by, notes):
    started_by({})
    placed = place(parse(MainConfig, "", ["--chunk", "auto"])).run
    assert (placed.chunk, placed.chunks) == (0, 1)
    assert "the whole set" in notes.text


def test_a_number_is_left_alone(started_by):
    started_by(SRUN)
    config = parse(MainConfig, "", ["--chunk", "1", "--chunks", "3"])
    assert place(config) == config


@pytest.mark.parametrize("text", ["all", "1.5", "-1"])
def test_another_word_than_auto_is_refused(text):
    with pytest.raises(FlagError) as caught:
        parse(MainConfig, "", ["--chunk", text])
    assert caught.value.field == "chunk"


def test_more_ranks_than_pictures_are_no_failure(tmp_path, started_by, capsys):
    started_by({"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": "7"})
    shop = Workshop(tmp_path)  # of six pictures
    assert shop.run(chunk="auto") == 0
    assert "note: nothing to do: " in capsys.readouterr().err
    assert not shop.output.exists()
