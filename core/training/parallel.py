"""The processes of one training: torchrun's, srun's or mpiexec's, joined by torch.distributed.

Alone, a process is rank 0 of 1, and nothing here asks another one.
"""

import gc
import logging
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ace_counterfactuals.core.base.notices import NOTICES, integers
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.unet import Block

STEP = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")
PORTS = 20_000, 12_000  # the first, and their number, of which a step of SLURM takes one by its numbers
PATIENCE = timedelta(hours=2)  # of those who wait for the first to draw samples; one that dies is noticed at once
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # on the first process alone
TAKEN = StateDictOptions(full_state_dict=True)


class Lost(ConnectionError):
    """Another process of the training ended."""


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(count: int) -> slice:
    """Which of so many pictures are this process's."""
    each = count // size()
    return slice(rank() * each, (rank() + 1) * each)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, (n,) float64 on the CPU."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def largest(*values: float) -> list[float]:
    """Of all processes, one by one."""
    found = torch.tensor(values, dtype=torch.float64)
    if size() > 1:
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def wait() -> None:
    """For all processes to come here."""
    largest(0)


def gathered(values: Any) -> list:
    """What each process has, by rank."""
    found = [values] * size()
    if size() > 1:
        dist.all_gather_object(found, values)
    return found


@contextmanager
def joined(own: int, count: int, environ: Mapping[str, str]) -> Iterator[None]:
    """Within, process ``own`` of ``count`` can ask the others, and tells nothing that the first one tells for all.

    environ: by which its launcher tells of them.  Raises Lost where another of them ended.
    """

    def told(record: logging.LogRecord) -> bool:
        return own == 0 or record.levelno >= logging.WARNING

    NOTICES.addFilter(told)
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, rank=own, world_size=count, timeout=PATIENCE, **meeting(own, count, environ))
        yield
        wait()  # a launcher that sees one end badly ends the others, who may still be writing
    except RuntimeError as error:
        said = str(error)
        if not isinstance(error, dist.DistError) and not any(word in said for word in ("gloo", "NCCL", "TCPStore")):
            raise
        raise Lost(f"process {own} of {count} ends, since another one did ({said.splitlines()[0][:120]})") from None
    finally:
        NOTICES.removeFilter(told)
        if dist.is_initialized():
            gc.collect()  # what still holds a group would keep its threads beyond Python's end, where they abort
            dist.destroy_process_group()


def meeting(own: int, count: int, environ: Mapping[str, str]) -> dict[str, Any]:
    """Where the processes meet, as ``init_process_group`` takes it.  Raises ValueError where nobody tells."""
    if {"MASTER_ADDR", "MASTER_PORT"} <= environ.keys():
        store, *_ = next(iter(rendezvous("env://", own, count)))
        attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store still has what others left there
        return {"store": dist.PrefixStore(f"attempt {attempt}", store)}
    numbers = integers(environ, STEP)
    if numbers and numbers[2] == count:
        job, step, _ = numbers
        shown = ["scontrol", "show", "hostnames", environ["SLURM_STEP_NODELIST"]]
        hosts = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.split()
        return {"init_method": f"tcp://{hosts[0]}:{PORTS[0] + (31 * job + step) % PORTS[1]}"}
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        known = f"{count} processes do not know where to meet: no MASTER_ADDR and MASTER_PORT, and no mpi4py ({error})"
        raise ValueError(f"{known}; pip install mpi4py, or start them by torchrun") from None
    store = dist.TCPStore(socket.gethostname(), 0, is_master=True, wait_for_workers=False) if own == 0 else None
    host, port = MPI.COMM_WORLD.bcast(store and (store.host, store.port))
    return {"store": store or dist.TCPStore(host, port, is_master=False)}


def spread(model: nn.Module, averages: Iterable[nn.Module], *, way: str) -> nn.Module:
    """What is called in the model's place, so that all processes take the mean of their gradients.

    way: "ddp", each holds all of the model; "fsdp", each holds a part of every layer's weights.
    Raises FlagError where this torch cannot.
    """
    if size() == 1:
        return model
    device = next(model.parameters()).device
    if way == "ddp":
        return DistributedDataParallel(model, [device] if device.type == "cuda" else None, gradient_as_bucket_view=True)
    if not shards(device.type):
        raise FlagError("dist", f"fsdp: torch {torch.__version__} knows it on GPUs alone; give ddp, or a newer torch")
    for one in (model, *averages):
        shard(one)
    return model


def shards(kind: str) -> bool:
    """Whether this torch can leave parts of weights to such devices: torch 2.6 cannot to CPUs."""
    return kind != "cpu" or hasattr(torch.cpu.Stream, "record_event")


def shard(model: nn.Module) -> None:
    """Leave each process a part of every layer's weights, which are not laid out for the device: that is refused."""
    model.to(memory_format=torch.contiguous_format)
    mesh = init_device_mesh(next(model.parameters()).device.type, (size(),))
    for block in [module for module in model.modules() if isinstance(module, Block)]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def weights_of(model: nn.Module) -> dict[str, Any]:
    """All of them, on the CPU of the first process; {} for the others.  All processes call it."""
    return get_model_state_dict(model, options=WHOLE)


def state_of(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """The same of its state, by the names of the weights."""
    return get_optimizer_state_dict(model, optimizer, options=WHOLE)


def take_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """All of them, of which this process may hold a part."""
    set_model_state_dict(model, weights, options=TAKEN)


def take_state(optimizer: Optimizer, model: nn.Module, state: Mapping[str, Any]) -> None:
    """The same of its state; in files of former versions it goes by the numbers of the weights."""
    if not state["state"]:  # no step was taken yet, and torch would make that one
        return
    names = [name for name, _ in model.named_parameters()]

    def named(key: int | str) -> str:
        return names[key] if isinstance(key, int) else key

    groups = [{**group, "params": [named(key) for key in group["params"]]} for group in state["param_groups"]]
    values = {named(key): one for key, one in state["state"].items()}
    set_optimizer_state_dict(model, optimizer, {"state": values, "param_groups": groups}, options=TAKEN)


def local(tensors: Any) -> list[Tensor]:
    """What this process holds of the tensors."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
