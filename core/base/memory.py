"""Memory that is free for this process, and what it looks like when there is none."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ace_counterfactuals.core.base.notices import ranks
from ace_counterfactuals.core.base.settings import FlagError

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
GROUP_FILES = (  # limit, use, and the name of what the use would give back, of versions 2 and 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
SAID = (
    "allocate memory",
    "enough memory",
    "of memory",
    "bad_alloc",
    "memory object",
    "create a primitive",
    "new thread",
)
"""In errors of torch, its kernels and Python where memory cannot be had"""
ADDRESSES = 2**30  # bytes of address space that threads and libraries reserve in a run beside what they use: measured


def free_bytes(device: torch.device) -> int:
    """What this process can still take on the device; of the CPU, what machine, control groups and RLIMIT_AS leave.

    Processes that a launcher started on this machine share it equally.
    """
    beside = beside_this()
    if device.type == "cuda":
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] // -(-beside // torch.cuda.device_count()) + own
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    room = min([free_of_machine(), *free_of_groups()]) // beside
    if limit != resource.RLIM_INFINITY and (taken := read(PROC / "self/statm")):
        room = min(room, limit - int(taken.split()[0]) * resource.getpagesize() - ADDRESSES)
    return max(0, room)


def beside_this() -> int:
    """Processes of one launcher on this machine, this one among them; 1 where that is not told."""
    told = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
    several = next((os.environ[name] for name in told if os.environ.get(name, "").isdecimal()), None)
    if several is None and ranks(os.environ):
        several = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0].partition(",")[0]
    return max(1, int(several)) if several and several.isdecimal() else 1


def free_of_machine() -> int:
    """What it can give without swapping, where it tells, else all that it has."""
    for line in read(PROC / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_of_groups() -> Iterator[int]:
    """What each control group around this process leaves."""
    for line in read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = GROUPS / "memory" if controllers else GROUPS
        group = root / path.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(root):
                yield from free_of_group(folder)


def free_of_group(folder: Path) -> Iterator[int]:
    """What it leaves, if it has a limit."""
    for limit, use, returned in GROUP_FILES:
        most, taken = read(folder / limit).strip(), read(folder / use).strip()
        if most.isdecimal() and taken.isdecimal():
            lines = [line.split() for line in read(folder / "memory.stat").splitlines()]
            yield int(most) - int(taken) + sum(int(value) for name, value in lines if name == returned)


def read(path: Path) -> str:
    """A file of the system; '' where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def is_short_of_memory(error: BaseException) -> bool:
    """Whether the error is that memory could not be had, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in SAID)


@contextmanager
def blaming_memory(field: str, reason: str) -> Iterator[None]:
    """Within, that memory could not be had is a FlagError of this setting."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_short_of_memory(error):
            raise
        raise FlagError(field, reason) from None


def in_bytes(count: float) -> str:
    """'12 B', '2.0 KiB', and so on to TiB."""
    unit = 0
    while count >= 1024 and unit < 4:
        count, unit = count / 1024, unit + 1
    return f"{count:.{1 if unit and count < 10 else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"
