"""Time and memory of a gradient through the diffusion model, beside the original's way to it.

    python benchmarks/gradient.py --steps 5 20

Each way and what stands beside it run by turns, in a process each, so that their ratio holds on a noisy machine. CPU
seconds are those of all threads: the median of the runs, and in brackets the least and the most. MiB is the most that a
gradient adds to the loaded networks. One step is a way of our own; it stands beside the original's whole chain.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import from_dict, to_dict
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.footprint import kept_bytes
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.core.preflight.model import peak_memory, start_memory
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import task_of
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.guided_diffusion.lean import laid_out
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.denoisers import DiffusionModel
from benchmarks import original

MODEL = {  # settings that are not main.py's defaults, of a chain of which a fifth is taken
    "num_res_blocks": 1,
    "channel_mult": "1,2,3,4",
    "attention_resolutions": "32,16,8",
    "learn_sigma": True,
    "resblock_updown": True,
    "diffusion_steps": 500,
    "sampling_time_fraction": 0.2,
}
COLUMNS = ["T", "gradient", "CPU s", "the original's", "ratio", "U-Net calls", "the original's"]
COLUMNS += ["MiB", "the original's", "ratio"]


@dataclass(frozen=True)
class Case:
    """A gradient to take.  settings: of main.py, beside MODEL; original: by the original's way."""

    size: int
    channels: int
    batch_size: int
    threads: int
    device: str
    precision: str
    settings: tuple[tuple[str, object], ...] = ()
    original: bool = False

    def network(self) -> tuple[MainConfig, Callable[..., Tensor]]:
        """The settings, and the U-Net that they describe, of random weights."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        flags = {**MODEL, "image_size": self.size, "num_channels": self.channels, **dict(self.settings)}
        config = from_dict(MainConfig, flags)
        unet = laid_out(build_unet(to_dict(config)).eval().requires_grad_(False).to(self.device))
        unet = unet.torso_to(getattr(torch, self.precision))
        return config, original.OriginalUNet(unet) if self.original else unet

    def picture(self) -> Tensor:
        return torch.rand(self.batch_size, 3, self.size, self.size, device=self.device)


class Run(NamedTuple):
    """CPU seconds, calls of the U-Net, and MiB at most from when the networks were loaded."""

    seconds: float
    calls: int
    memory: float


@cache
def prepared(case: Case) -> Callable[[], Run]:
    """What takes the gradient, in a process that does nothing else."""
    config, unet = case.network()
    classifier = build_classifier("densenet121", 40).eval().requires_grad_(False).to(case.device)
    calls = 0

    def model(x, t, y=None):
        nonlocal calls
        calls += 1
        return unet(x, t, y)

    denoiser = DiffusionModel(model, GaussianDiffusion(config.diffusion))
    image, before = case.picture(), start_memory(torch.device(case.device))
    batch = judge(image, task_of(config, lambda pictures: classifier(pictures)[:, 31], denoiser))
    batch = batch.aimed_at(torch.ones_like(batch.prediction))
    ours = make_grad_fn(batch, find_attack(config.attack.attack_method, targeted=True))
    gradient = original.make_grad_fn(batch) if case.original else ours

    def take() -> Run:
        nonlocal calls
        calls, started = 0, time.process_time()
        gradient(image, 0).sum().item()
        seconds = time.process_time() - started
        return Run(seconds, calls, (peak_memory(image.device) - before) / 2**20)

    return take


def run(case: Case) -> Run:
    return prepared(case)()


def kept(case: Case) -> float:
    """MiB that a call of the U-Net keeps for its backward pass: each storage once, the weights not counted."""
    _, unet = case.network()
    weights = unet.weights.values() if case.original else unet.parameters()
    x_t, steps = case.picture().requires_grad_(), torch.full((case.batch_size,), 100, device=case.device)
    found = kept_bytes(lambda: unet(x_t, steps), weights)
    assert found, "nothing is kept without a graph"
    return found / 2**20


def by_turns(cases: Sequence[Case], runs: int) -> list[list[Run]]:
    """The runs of each case, after one that does not count."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision"])
    pools = [context.Pool(1) for _ in cases]
    try:
        turns = [[pool.apply(run, (case,)) for pool, case in zip(pools, cases, strict=True)] for _ in range(runs + 1)]
    finally:
        for pool in pools:
            pool.terminate()
    return [list(own) for own in zip(*turns[1:], strict=True)]


def ways(segments: list[int]) -> dict[str, tuple[dict, dict]]:
    """Name of a way -> the settings that ask for it, and those of what stands beside it."""
    checkpointed = {
        f"checkpoint {steps}": ({"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": steps},) * 2
        for steps in segments
    }
    shortcut = {"attack_joint_shortcut": True}
    one_step = ({"attack_filter": "one-step"}, {})
    return {"whole chain": ({}, {}), **checkpointed, "shortcut": (shortcut, shortcut), "one step": one_step}


def row(steps: int, way: str, ours: list[Run], theirs: list[Run]) -> list[str]:
    cells = [str(steps), way]
    for name, form in (("seconds", "{:.2f} ({:.2f} to {:.2f})"), ("calls", "{:.0f}"), ("memory", "{:.0f}")):
        values = [[getattr(run, name) for run in runs] for runs in (ours, theirs)]
        middles = [median(own) for own in values]
        cells += [form.format(middle, min(own), max(own)) for middle, own in zip(middles, values, strict=True)]
        cells += [] if name == "calls" else [f"{middles[0] / middles[1]:.2f}"]
    return cells


def make_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    parser.add_argument("--channels", type=int, default=64, help="--num_channels of the U-Net")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures")
    parser.add_argument("--runs", type=int, default=3, help="counted runs, after one that is not")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="float32", help="of the torso: float32, float16 or bfloat16")
    return parser


def case_of(args: argparse.Namespace) -> Case:
    return Case(args.size, args.channels, args.batch_size, args.threads, args.device, args.precision)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 20], help="T: denoising steps of the filter")
    parser.add_argument("--segments", type=int, nargs="+", default=[1], help="steps between stored states")
    args = parser.parse_args(argv)
    case = case_of(args)
    bytes_kept = [kept(case), kept(replace(case, original=True))]
    print(f"{args.size} px, {args.channels} channels, batch {args.batch_size}, {args.device} {args.precision}")
    said = "a call of the U-Net keeps {:.1f} MiB for its backward pass, the original's {:.1f}: {:.2f}"
    print(said.format(*bytes_kept, bytes_kept[0] / bytes_kept[1]) + "\n")
    print(markdown_rows([COLUMNS]))
    for steps in args.steps:
        for way, settings in ways(args.segments).items():
            chain = {"timestep_respacing": str(5 * steps)}
            cases = [
                replace(case, settings=tuple({**own, **chain}.items()), original=bool(place))
                for place, own in enumerate(settings)
            ]
            print(markdown_rows([row(steps, way, *by_turns(cases, args.runs))]).splitlines()[0], flush=True)


if __name__ == "__main__":
    main()
