"""Which part of the work falls to this process: ``--chunk auto`` under SLURM arrays, srun, mpiexec and torchrun.

A launcher tells its processes by environment variables.  An array of tasks, each of several ranks, is split into
array tasks x ranks chunks.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ace_counterfactuals.core.base.notices import integers, notice, ranks
from ace_counterfactuals.core.base.settings import AUTO, FlagError

Result = TypeVar("Result")
ARRAY = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX", "STEP"))


def mpi_rank() -> tuple[int, int]:
    """Rank and number of ranks by mpi4py, for an MPI whose variables are not known here; (0, 1) without it."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # not installed; no MPI library
        return 0, 1
    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()


def place(config: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """``config`` with ``--chunk auto`` put in numbers, which a notice tells.

    Raises FlagError if ``chunks`` is given and the launcher's tasks are other parts.
    """
    run = config.run
    if run.chunk != AUTO:
        return config
    if run.merge_chunks:
        return replace(config, run=replace(run, chunk=0))
    chunk, chunks = part(run.chunks, environ)
    alone = "the whole set: this process was not started beside others"
    notice(f"--chunk auto is {alone if chunks == 1 else f'chunk {chunk} of {chunks}'}")
    return replace(config, run=replace(run, chunk=chunk, chunks=chunks))


def run_part(run: Callable[[Any], Result], config: Any, *, automatic: bool) -> Result | None:
    """``run(config)``; None, with a notice, where no picture falls to an ``automatic`` chunk, which is no failure."""
    from ace_counterfactuals.core.data.imageset import EmptySelection

    try:
        return run(config)
    except EmptySelection as error:
        if not automatic or error.field != "chunk":
            raise
        notice(f"nothing to do: {error}")
        return None


def part(chunks: int, environ: Mapping[str, str]) -> tuple[int, int]:
    """This process's chunk and the number of chunks.  chunks: the number that was given; 1 counts as not given."""
    found, array = ranks(environ), integers(environ, ARRAY)
    rank, count = found[:2] if found else (0, 1) if array else mpi_rank()
    if array is None:
        if chunks not in (1, count):
            started = "process was" if count == 1 else "processes were"
            advice = f"start {chunks}, or give --chunk a number"
            raise FlagError("chunks", f"{chunks} with --chunk auto: {count} {started} started here; {advice}")
        return rank, count
    if chunks == 1:
        position, tasks = array_position(*array)
        return position * count + rank, tasks * count
    # With --chunks the task's id is its number, so that a task that is repeated alone is the part it was before.
    chunk = array[0] * count + rank
    if chunk >= chunks or chunks % count:
        none = f"SLURM array task {array[0]} of {count} ranks is none of them"
        advice = f"number the tasks from 0, --array=0-{max(chunks // count - 1, 0)}, or leave out --chunks"
        raise FlagError("chunks", f"{chunks} with --chunk auto: {none}; {advice}")
    return chunk, chunks


def array_position(task: int, count: int, low: int, high: int, step: int) -> tuple[int, int]:
    """A task's place among the tasks of its array, and their number."""
    if low + (count - 1) * step != high or (count == 1 and task):
        known = f"SLURM array task {task} is one of {count} from {low} to {high}"
        advice = "give --chunks as well, and task ids count from 0"
        raise FlagError("chunk", f"auto: {known}, which does not tell the number of chunks; {advice}")
    return (task - low) // step, count
