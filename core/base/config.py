"""Settings that every program has: where to compute, and the seed of the noise."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import flag


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    device: str = flag(
        "auto",
        "where to compute; auto takes cuda, then mps, then cpu",
        choices=("auto", "cpu", "cuda", "mps"),
        result=False,
    )
    gpu: int = flag(
        0, "which of the visible CUDA devices; a process with a local rank takes that one instead", low=0, result=False
    )
    num_workers: int = flag(2, "threads that read pictures ahead; 0 reads between the batches", low=0, result=False)


@dataclass(frozen=True, kw_only=True)
class SeededConfig(DeviceConfig):
    seed: int = flag(4, "seed of all noise", low=0)
