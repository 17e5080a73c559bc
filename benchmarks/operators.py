"""Where the time of a gradient goes: a call of the U-Net and its backward pass, by kind of operator.

    python benchmarks/operators.py

CPU milliseconds, shares of the whole, and how much of the machine's peak the floating point operations of a kind reach:
of the fastest large convolution in float32, measured in the same run. Beside this implementation stands the original's
network, whose attention is computed twice. With another --precision, it says what that one makes of a call.
"""

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ace_counterfactuals.core.evaluation.tables import markdown_rows
from benchmarks.gradient import Case, case_of, make_parser

KINDS = {  # the first that the name of an operator, or of the outermost that it is a part of, matches
    "attention": r"scaled_dot_product|ScaledDotProduct|softmax|Softmax|bmm|Bmm|einsum",
    "convolutions, backward": r"(?i)conv\w*_?backward",
    "convolutions, forward": r"(?i)conv",
    "products of matrices": r"linear|addmm|matmul|::mm|mm\.|AddmmBackward|MmBackward",
    "normalisation, activation": r"(?i)norm|silu",
    "sums and scales": r"(?i)::(add|mul)|Backward.*: (Add|Mul)|: (Add|Mul)Backward",
    "copies, resampling": r"(?i)cat|copy|clone|contiguous|chunk|slice|split|unbind|upsample|pool",
}
OTHER = "other"
SIZES = [(1, 256, 64), (1, 128, 64), (1, 128, 32), (1, 512, 32)]  # pictures, channels, side


def kind_of(names: Sequence[str]) -> str:
    """Of an operator.  names: its own last, after those of what it is a part of."""
    kinds = (kind for name in names for kind, pattern in KINDS.items() if re.search(pattern, name))
    return next(kinds, OTHER)


def lineage(event) -> list[str]:
    names = []
    while event is not None:
        names.insert(0, event.name)
        event = event.cpu_parent
    return names


@dataclass(frozen=True)
class Spent:
    """CPU seconds and floating point operations of a call and its backward pass, by kind."""

    seconds: dict[str, float]
    operations: dict[str, float]


class Counted(TorchDispatchMode):
    """Counts floating point operations by kind."""

    def __init__(self):
        super().__init__()
        self.operations: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result, operator = function(*args, **(kwargs or {})), function._overloadpacket
        if operator in flop_registry:
            self.operations[kind_of([str(function)])] += flop_registry[operator](*args, **kwargs or {}, out_val=result)
        elif "flash_attention_for_cpu" in str(function):  # which torch's table lacks
            count = sdpa_backward_flop_count if "backward" in str(function) else sdpa_flop_count
            tensors = [arg.shape for arg in args if isinstance(arg, Tensor)]
            self.operations["attention"] += count(*tensors[: 4 if "backward" in str(function) else 3])
        return result


def calls_of(case: Case) -> Callable[[], None]:
    """A call of the network, and back."""
    _, unet = case.network()
    x_t, steps = case.picture().requires_grad_(), torch.full((case.batch_size,), 100, device=case.device)

    def call() -> None:
        output = unet(x_t, steps)
        torch.autograd.grad(output, x_t, torch.ones_like(output))

    return call


def spent(call: Callable[[], None], runs: int) -> Spent:
    """The shares of kinds are those of the clock, which counts what other programs take of each alike."""
    call()
    seconds = median(timed(call) for _ in range(runs))
    with Counted() as counted:
        call()
    shares: dict[str, float] = defaultdict(float)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(runs):
            call()
    for event in profiled.events():
        shares[kind_of(lineage(event))] += event.self_cpu_time_total
    whole = sum(shares.values())
    return Spent({kind: share / whole * seconds for kind, share in shares.items()}, counted.operations)


def timed(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def peak(dtype: torch.dtype, runs: int) -> float:
    """Operations a CPU second of the fastest 3x3 convolution."""
    found = []
    for pictures, channels, side in SIZES:
        x, weight = (torch.rand(n, channels, k, k, dtype=dtype) for n, k in ((pictures, side), (channels, 3)))
        least = min(timed(partial(torch.conv2d, x, weight, padding=1)) for _ in range(runs))
        found.append(2 * 9 * channels**2 * side**2 * pictures / least)
    return max(found)


def table(found: dict[str, Spent], most: float) -> str:
    heads = ["operators", *(f"{name}{part}" for name in found for part in (", ms", ", share", ", GFLOP", ", of peak"))]
    rows = [heads]
    for kind in [*KINDS, OTHER, "all"]:
        cells = [kind]
        for one in found.values():
            whole = sum(one.seconds.values())
            seconds, operations = (
                sum(part.values()) if kind == "all" else part.get(kind, 0.0) for part in (one.seconds, one.operations)
            )
            reached = f"{operations / seconds / most:.2f}" if operations and seconds else "-"
            cells += [f"{1000 * seconds:.0f}", f"{seconds / whole:.2f}", f"{operations / 1e9:.2f}", reached]
        rows.append(cells)
    return markdown_rows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser(__doc__).parse_args(argv)
    case, most = replace(case_of(args), precision="float32"), peak(torch.float32, args.runs)
    found = {name: spent(calls_of(replace(case, original=name != "ours")), args.runs) for name in ("ours", "original")}
    print(f"{args.size} px, {args.channels} channels, batch {args.batch_size}; peak {most / 1e9:.0f} GFLOP/s\n")
    print(table(found, most))
    if args.precision != case.precision:
        one = replace(case, precision=args.precision)
        slower = min(timed(calls_of(one)) for _ in range(2)) / sum(found["ours"].seconds.values())
        reached = peak(getattr(torch, args.precision), 1)
        print(f"\n{args.precision}: {slower:.2f} of the time, peak {reached / 1e9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
