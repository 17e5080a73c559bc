"""Time and memory of a gradient through the diffusion model: whole chain, checkpointed, one step, shortcut.

    python benchmarks/gradient.py --steps 5 20

Each way runs in a process of its own, the ways in turn in one run, so that the ratios hold on a noisy machine. CPU
seconds are those of all threads; peak memory is what the gradient adds to the loaded networks.
"""

import argparse
import multiprocessing
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F

from ace_counterfactuals.core.base.settings import to_dict
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.gradients import (
    chain_gradient,
    checkpointed_gradient,
    one_step_gradient,
    plain_gradient,
    shortcut_gradient,
)
from ace_counterfactuals.core.method.noise import image_noise
from ace_counterfactuals.core.preflight.model import peak_memory, start_memory
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.classifiers import build_classifier

UNET = {
    "num_res_blocks": 1,
    "channel_mult": "1,2,3,4",
    "attention_resolutions": "32,16,8",
    "learn_sigma": True,
    "resblock_updown": True,
}
"""The settings of the U-Net that are not main.py's defaults."""


def measure(way: str, steps: int, args: argparse.Namespace, queue) -> None:
    """Put (CPU seconds of each run, seconds of each run, U-Net calls a gradient, peak MiB) into ``queue``."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    flags = {**to_dict(MainConfig()), **UNET, "image_size": args.size, "num_channels": args.channels}
    unet = build_unet(flags).eval().requires_grad_(False).to(device)
    unet = unet.torso_to(getattr(torch, args.precision))
    classifier = build_classifier("densenet121", 40).eval().requires_grad_(False).to(device)
    calls = 0

    def model(x, t, y=None):
        nonlocal calls
        calls += 1
        return unet(x, t, y)

    diffusion = GaussianDiffusion(DiffusionConfig(diffusion_steps=500, learn_sigma=True), str(5 * steps))
    filter_ = Filter(diffusion, model, steps)
    image = torch.rand(args.batch_size, 3, args.size, args.size, device=device)
    noise = image_noise(0, list(range(args.batch_size)), 0)

    def objective(pictures):
        logits = classifier(pictures)[:, 31]
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")

    gradient = {
        "classifier alone": lambda: plain_gradient(objective, image),
        "one step": lambda: one_step_gradient(objective, filter_, image, noise),
        "shortcut": lambda: shortcut_gradient(objective, filter_, image, noise),
        "whole chain": lambda: chain_gradient(objective, filter_, image, noise),
    }.get(way) or partial(checkpointed_gradient, objective, filter_, image, noise, segment=int(way.split()[-1]))
    before, cpu, wall = start_memory(device), [], []
    for _ in range(args.runs + 1):
        calls, started, started_cpu = 0, time.perf_counter(), time.process_time()
        gradient().sum().item()
        cpu.append(time.process_time() - started_cpu)
        wall.append(time.perf_counter() - started)
    queue.put((cpu[1:], wall[1:], calls, (peak_memory(device) - before) / 2**20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 20], help="T: denoising steps of the filter")
    parser.add_argument("--segments", type=int, nargs="+", default=[1, 2], help="steps between stored states")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    parser.add_argument("--channels", type=int, default=64, help="--num_channels of the U-Net")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures")
    parser.add_argument("--runs", type=int, default=3, help="counted runs, after one that is not")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="float32", help="of the torso: float32, float16 or bfloat16")
    args = parser.parse_args()
    print(f"{args.size} px, {args.channels} channels, batch {args.batch_size}, {args.device} {args.precision}")
    print(f"{'T':>3}  {'gradient':<18}{'CPU s':>8}{'wall s':>8}{'of chain':>10}{'U-Net calls':>13}{'peak MiB':>10}")
    ways = [
        "whole chain",
        *(f"checkpoint {segment}" for segment in args.segments),
        "one step",
        "shortcut",
        "classifier alone",
    ]
    context = multiprocessing.get_context("spawn")
    for steps in args.steps:
        chain = None
        for way in ways:
            queue = context.Queue()
            process = context.Process(target=measure, args=(way, steps, args, queue))
            process.start()
            cpu, wall, calls, memory = queue.get()
            process.join()
            chain = chain or median(cpu)
            print(
                f"{steps:>3}  {way:<18}{median(cpu):>8.2f}{median(wall):>8.2f}{median(cpu) / chain:>10.2f}"
                f"{calls:>13}{memory:>10.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
