"""A step of train_diffusion.py beside one of a plain loop of the published training's kind, in one process by turns.

    python benchmarks/training_step.py --size 64 --batch 8

The plain loop is written from docs/original.md: the U-Net operator by operator, the moving average and the gradient's
norm one parameter after another, AdamW not fused. CPU seconds of both, and the share of our steps that waits for
pictures, by the clock, while threads decode them. Ours is there twice where the processor computes bfloat16, the second
time with --use_fp16 True.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ace_counterfactuals.core.base.runtime import half_precision
from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.evaluation.tables import markdown_rows
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.diffusion import make_trainer, picture_batches, training_images
from ace_counterfactuals.core.training.trainer import Batch, Trainer
from benchmarks.original import OriginalUNet

HALF = "ours, bfloat16"
NETWORK = {"num_res_blocks": 2, "num_head_channels": 32, "learn_sigma": True, "resblock_updown": True}
NETWORK |= {"rescale_learned_sigmas": True, "diffusion_steps": 500, "lr_anneal_steps": 1000}


def plain_steps(trainer: Trainer, batch: Callable[[int], Batch]) -> Iterator[float]:
    """Losses of the published loop, which begins as the trainer does."""
    network, process, config = OriginalUNet(trainer.model), trainer.diffusion, trainer.config
    weights = list(network.weights.values())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, foreach=False)
    for step in count():
        x_0, _ = batch(step)
        t = torch.randint(process.num_timesteps, (len(x_0),))
        for weight in weights:
            if weight.grad is not None:
                weight.grad.zero_()
        loss = process.training_losses(network, x_0, t, torch.randn_like(x_0))["loss"].mean()
        loss.backward()
        sum((weight.grad**2).sum().item() for weight in weights) ** 0.5  # noqa: B018 (it is logged there)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (1 - step / config.lr_anneal_steps)
        optimizer.step()
        for mean, weight in zip(average, weights, strict=True):
            mean.mul_(config.ema_rate).add_(weight.detach(), alpha=1 - config.ema_rate)
        yield loss.item()


class Clocked:
    """Batches, and the seconds that somebody waited for them."""

    def __init__(self, batch: Callable[[int], Batch]):
        self.batch, self.waited = batch, 0.0

    def __call__(self, step: int) -> Batch:
        begin = time.perf_counter()
        try:
            return self.batch(step)
        finally:
            self.waited += time.perf_counter() - begin


def settings(args: argparse.Namespace) -> TrainDiffusionConfig:
    flags = {"dataset": "Folder", "data_dir": args.pictures, "device": "cpu", "num_workers": 1}
    flags |= {"image_size": args.size, "batch_size": args.batch, "attention_resolutions": str(args.size // 4)}
    flags |= {"num_channels": args.channels, "channel_mult": args.mult}
    return from_dict(TrainDiffusionConfig, {**flags, **NETWORK})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", default=str(Path(__file__).parent.parent / "demo/pictures"))
    for name, default in (("size", 64), ("channels", 64), ("batch", 8), ("runs", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--mult", default="1,2,2", metavar="M,M,...", help="widths of the levels, of channels")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = settings(args)
    images = training_images(config)
    ours, theirs = (make_trainer(config, None, images, Path("")) for _ in range(2))
    batch = Clocked(picture_batches(config, images, None, 0))
    loops: dict[str, Iterator] = {"ours": ours.train(batch, 10**9)}
    if half_precision(torch.device("cpu")) != torch.float32:
        halved = replace(config, model=replace(config.model, use_fp16=True))
        other = make_trainer(halved, None, images, Path(""))
        loops[HALF] = other.train(picture_batches(config, images, None, 0), 10**9)
    loops["published"] = plain_steps(theirs, picture_batches(config, images, None, 0))
    spent: dict[str, list[float]] = {name: [] for name in loops}
    clock = 0.0
    for turn in range(args.runs + 1):
        for name, loop in loops.items():
            begin, began = time.process_time(), time.perf_counter()
            next(loop)
            if turn and name == "ours":
                clock += time.perf_counter() - began
            elif not turn:
                batch.waited = 0.0  # the first step waits for the first pictures
            spent[name].append(time.process_time() - begin)
    seconds = {name: median(values[1:]) for name, values in spent.items()}
    rows = [[name, f"{value:.3f}"] for name, value in seconds.items()]
    rows += [[f"{name} / published", f"{seconds[name] / seconds['published']:.3f}"] for name in loops if "ours" in name]
    rows += [["share of a step that waits for pictures", f"{batch.waited / clock:.4f}"]]
    print(markdown_rows([["a step", "CPU s"], *rows]))


if __name__ == "__main__":
    main()
