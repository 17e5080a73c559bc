"""Time and memory of a gradient through the diffusion model: whole chain, checkpointed, one step, shortcut.

    python benchmarks/gradient.py --steps 5 20

Each way runs in a process of its own, the ways in turn in one run, so that the ratios hold on a noisy machine. CPU
seconds are those of all threads; peak memory is what the gradient adds to the loaded networks.
"""

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ace_counterfactuals.core.base.settings import from_dict, to_dict
from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.core.preflight.model import peak_memory, start_memory
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import task_of
from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.denoisers import DiffusionModel

MODEL = {  # settings that are not main.py's defaults, of a chain of which a fifth is taken
    "num_res_blocks": 1,
    "channel_mult": "1,2,3,4",
    "attention_resolutions": "32,16,8",
    "learn_sigma": True,
    "resblock_updown": True,
    "diffusion_steps": 500,
    "sampling_time_fraction": 0.2,
}


def ways(segments: list[int]) -> dict[str, dict]:
    """Ways to a gradient, by the settings that ask for them."""
    checkpointed = {
        f"checkpoint {steps}": {"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": steps}
        for steps in segments
    }
    return {
        "whole chain": {},
        **checkpointed,
        "one step": {"attack_filter": "one-step"},
        "shortcut": {"attack_joint_shortcut": True},
        "classifier alone": {"attack_joint": False},
    }


def measure(settings: dict, args: argparse.Namespace) -> tuple[float, float, int, float]:
    """Median CPU seconds and seconds of a run, U-Net calls a gradient, peak MiB."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    config = from_dict(MainConfig, {**MODEL, "image_size": args.size, "num_channels": args.channels, **settings})
    unet = build_unet(to_dict(config)).eval().requires_grad_(False).to(device)
    unet = unet.torso_to(getattr(torch, args.precision))
    classifier = build_classifier("densenet121", 40).eval().requires_grad_(False).to(device)
    calls = 0

    def model(x, t, y=None):
        nonlocal calls
        calls += 1
        return unet(x, t, y)

    image, before = torch.rand(args.batch_size, 3, args.size, args.size, device=device), start_memory(device)
    denoiser = DiffusionModel(model, GaussianDiffusion(config.diffusion))
    batch = judge(image, task_of(config, lambda pictures: classifier(pictures)[:, 31], denoiser))
    batch = batch.aimed_at(torch.ones_like(batch.prediction))
    gradient = make_grad_fn(batch, find_attack(config.attack.attack_method, targeted=True))
    cpu, wall = [], []
    for _ in range(args.runs + 1):
        calls, started, started_cpu = 0, time.perf_counter(), time.process_time()
        gradient(image, 0).sum().item()
        cpu.append(time.process_time() - started_cpu)
        wall.append(time.perf_counter() - started)
    return median(cpu[1:]), median(wall[1:]), calls, (peak_memory(device) - before) / 2**20


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
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for steps in args.steps:
            chain = None
            for way, settings in ways(args.segments).items():
                settings = {**settings, "timestep_respacing": str(5 * steps)}
                cpu, wall, calls, memory = pool.apply(measure, (settings, args))
                chain = chain or cpu
                figures = f"{cpu:>8.2f}{wall:>8.2f}{cpu / chain:>10.2f}{calls:>13}{memory:>10.0f}"
                print(f"{steps:>3}  {way:<18}{figures}", flush=True)


if __name__ == "__main__":
    main()
