"""Where to compute: device, precision, deterministic kernels; and how numbers get there."""

import os

import torch
from torch import Tensor

from ace_counterfactuals.core.base.notices import local_rank, notice
from ace_counterfactuals.core.base.settings import FlagError


def choose_device(device: str, gpu: int) -> torch.device:
    """The device that a run computes on; a launcher's local rank goes before ``gpu``.  Raises FlagError."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        raise FlagError("device", "mps: not available here; choose cpu")
    if device != "cuda":
        return torch.device(device)
    if not torch.cuda.is_available():
        raise FlagError("device", "cuda: no CUDA device is visible; choose cpu")
    visible, rank = torch.cuda.device_count(), local_rank()
    if rank is not None:
        if gpu not in (0, rank % visible):
            notice(f"gpu {gpu} is ignored: this process has local rank {rank}")
        gpu = rank % visible  # 0 where the launcher shows each process its own device alone
    if gpu >= visible:
        raise FlagError("gpu", f"{gpu}: only {visible} CUDA devices are visible; choose 0 to {visible - 1}")
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def half_precision(device: torch.device, *, on_cuda: torch.dtype = torch.float16) -> torch.dtype:
    """What ``use_fp16`` means on a device."""
    if device.type == "cuda":
        return on_cuda
    if device.type == "cpu" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        notice("use_fp16 True is float32 here: this CPU has no instructions for bfloat16, which would be slower")
        return torch.float32
    slow = ", which this CPU emulates: use_fp16 False may be faster" if device.type == "cpu" and emulated() else ""
    notice(f"use_fp16 True is bfloat16 on {device.type}{slow}")
    return torch.bfloat16


def emulated() -> bool:
    """Whether the CPU is known to have no instructions for products of bfloat16, whose place others take."""
    found = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return found is not None and not found()


def upload(values: Tensor, device: torch.device) -> Tensor:
    """What lies on the CPU, on the device, which fetches it when it comes to it: nobody waits."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=device.type != "mps")  # there, the source might be gone before it is fetched


def make_deterministic() -> None:
    """Kernels that give the same bits every time (``cudnn_deterministic``)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
