"""What the user may want to know, and where a process runs; nothing here imports torch."""

import logging
import os
import re
import socket
from collections.abc import Mapping
from datetime import datetime, timezone

NOTICES = logging.getLogger("ace_counterfactuals")

# Rank, number of ranks, rank on the node.  The first that is complete counts: mpiexec starts its processes by srun.
# SLURM_STEP_NUM_TASKS tells a step of srun from a batch script, which has SLURM_PROCID 0 and SLURM_LOCALID 0 too.
RANKS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),  # MVAPICH
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH, Intel MPI
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun
)


def notice(message: str, *, level: int = logging.INFO) -> None:
    """Tell the user: programs print it on stderr, and a host program shows it if it wants.

    level: WARNING for what one of several processes has to tell that share a work, and the others do not.
    """
    NOTICES.log(level, plain(message))


def plain(text: str) -> str:
    """Line breaks and terminal codes, which a file's name may have, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_time(seconds: float) -> str:
    """'12 ms', '3.2 s', '10 min', '10 h' or '12 days'."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def host_name() -> str:
    """This computer's name, fit for a file's name."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def owner() -> str:
    """HOST-PID, which names the files that a process has to itself."""
    return f"{host_name()}-{os.getpid()}"


def is_running(pid: int) -> bool:
    """Whether a process of this computer, other than this one, has the number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def integers(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The values of the variables, if each of them is there and a number."""
    values = [environ.get(name, "") for name in names]
    return tuple(map(int, values)) if all(value.isdecimal() for value in values) else None


def ranks(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """This process's rank, the number of ranks, and its rank on its node, where a launcher tells them."""
    return next(filter(None, (integers(environ, names) for names in RANKS)), None)


def local_rank() -> int | None:
    """This process's number on its node, if a launcher started it beside others."""
    found = ranks(os.environ)
    return found[2] if found else None
