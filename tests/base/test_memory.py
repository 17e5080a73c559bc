"""Free memory is the least of what machine, control groups and limits leave."""

import resource
from types import SimpleNamespace

import pytest
import torch

from ace_counterfactuals.core.base import memory
from ace_counterfactuals.core.base.memory import blaming_memory, free_bytes, in_bytes, is_short_of_memory
from ace_counterfactuals.core.base.settings import FlagError

CPU, MIB = torch.device("cpu"), 2**20


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Files of /proc and of control groups, on a machine of 100 MiB free and without limits."""

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    for name in ("LOCAL_WORLD_SIZE", "RANK", "PMI_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    write("proc/meminfo", f"MemTotal: 900000 kB\nMemAvailable: {100 * 1024} kB")
    write("proc/self/cgroup", "0::/job/step")
    return write


def test_a_machine_without_limits_leaves_what_it_has(system):
    assert free_bytes(CPU) == 100 * MIB


def test_a_control_group_leaves_its_limit_less_what_it_could_not_give_back(system):
    system("cgroup/job/memory.max", 50 * MIB)
    system("cgroup/job/memory.current", 30 * MIB)
    system("cgroup/job/memory.stat", f"anon {10 * MIB}\ninactive_file {20 * MIB}")
    system("cgroup/job/step/memory.max", "max")
    system("cgroup/job/step/memory.current", 30 * MIB)
    assert free_bytes(CPU) == 40 * MIB


def test_groups_of_version_1_are_read_too(system):
    system("proc/self/cgroup", "4:memory:/job\n3:cpuset:/other\n0::/")
    system("cgroup/memory/job/memory.limit_in_bytes", 50 * MIB)
    system("cgroup/memory/job/memory.usage_in_bytes", 45 * MIB)
    assert free_bytes(CPU) == 5 * MIB


def test_a_limit_of_the_address_space_leaves_what_is_not_taken(system, monkeypatch):
    monkeypatch.setattr(memory, "ADDRESSES", 7 * MIB)
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (80 * MIB, 80 * MIB))
    system("proc/self/statm", f"{20 * MIB // resource.getpagesize()} 1 1 1 0 1 0")
    assert free_bytes(CPU) == 53 * MIB
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (10 * MIB, 10 * MIB))
    assert free_bytes(CPU) == 0


@pytest.mark.parametrize(
    "told",
    [
        {"LOCAL_WORLD_SIZE": "4"},
        {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
    ],
)
def test_processes_of_one_launcher_share_a_machine(system, monkeypatch, told):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert free_bytes(CPU) == 25 * MIB


def test_a_device_shared_by_processes_is_shared_by_their_number(monkeypatch):
    values = {"memory_reserved": 3, "memory_allocated": 1, "mem_get_info": (40, 99), "device_count": 2}
    cuda = SimpleNamespace(**{name: lambda *_, value=value: value for name, value in values.items()})
    monkeypatch.setattr(memory.torch, "cuda", cuda)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(torch.device("cuda", 0)) == 40 // 2 + 2


def test_what_allocators_say_is_known_as_a_lack_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_short_of_memory(caught.value) and is_short_of_memory(MemoryError())
    assert not is_short_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_lack_of_memory_is_a_setting_that_is_too_large_and_other_errors_stay_as_they_are():
    with pytest.raises(FlagError, match="batch_size 9: too many"), blaming_memory("batch_size", "9: too many"):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="others"), blaming_memory("batch_size", ""):
        raise RuntimeError("others")


def test_bytes_are_put_for_people():
    assert [in_bytes(n) for n in (12, 2048, 5 * 2**20, 2**40)] == ["12 B", "2.0 KiB", "5.0 MiB", "1.0 TiB"]
