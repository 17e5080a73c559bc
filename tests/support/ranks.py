"""Twenty steps of toy trainings by the processes that a launcher starts.   python tests/support/ranks.py FILE"""

import os
import sys
from functools import partial

import numpy as np
import torch

from ace_counterfactuals.core.base.notices import ranks
from ace_counterfactuals.core.training import parallel
from ace_counterfactuals.core.training.config import TrainingConfig
from ace_counterfactuals.core.training.trainer import Batch, Trainer
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from ace_counterfactuals.models.loading import save_weights
from tests.support.toys import make_diffusion, toy_unet

STEPS, BATCH = 20, 8
WAYS = ("ddp", "fsdp") if parallel.shards("cpu") else ("ddp",)
SETTINGS = {"ema_rate": "0.5,0.9", "microbatch": 3, "schedule_sampler": "loss-second-moment", "init_step": 3}
SETTINGS |= {"grad_clip": 0.5, "lr_warmup_steps": 5}


def batch(step: int, dtype: torch.dtype) -> Batch:
    """This process's part of a step's pictures, some of which cannot be read."""
    rng = np.random.default_rng(step)
    x_0 = torch.from_numpy(rng.uniform(-1, 1, (BATCH, 3, 8, 8))).to(dtype)
    kept = torch.from_numpy(rng.random(BATCH) > 0.2)
    own = parallel.share(BATCH)
    return x_0[own][kept[own]], torch.arange(BATCH)[own][kept[own]] % 3


def network(dtype: torch.dtype) -> UNetModel:
    return toy_unet(dtype, num_classes=3, class_cond=True, channel_mult="1", attention_resolutions="8")


def trained(way: str, dtype: torch.dtype = torch.float64) -> dict:
    """Losses, weights and averages after all steps, the second half of which another trainer takes."""
    process = make_diffusion(diffusion_steps=50, learn_sigma=True, rescale_learned_sigmas=True)
    config = TrainingConfig(batch_size=BATCH, lr=1e-3, dist=way, **SETTINGS)
    losses: list[float] = []
    states: dict[str, dict] = {}
    for until in (STEPS // 2, STEPS):
        model, *emas = (network(dtype) for _ in range(3))
        for name, module in zip(("model", "0.5", "0.9"), (model, *emas), strict=True):
            module.load_state_dict(states.get(name, module.state_dict()))
        averages = dict(zip((0.5, 0.9), emas, strict=True))
        trainer = Trainer(model.requires_grad_(), process, config, seed=3, averages=averages)
        if states:
            trainer.step = states["tree"]["step"]
            trainer.load_state_dict(states["tree"], {})
        losses += [step["loss"] for step in trainer.train(partial(batch, dtype=dtype), until)]
        parts = {"model": trainer.model, **{str(rate): ema for rate, ema in trainer.emas.items()}}
        states = {name: parallel.weights_of(module) for name, module in parts.items()}
        states["tree"] = trainer.state_dict()
        states = parallel.gathered(states)[0]
    return {"losses": torch.tensor(losses, dtype=torch.float64), **states}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, count = ranks(os.environ)[:2]
    with parallel.joined(rank, count, os.environ):
        found = {way: trained(way) for way in WAYS}
        for way, states in found.items():
            states["losses of float32"] = trained(way, torch.float32)["losses"]
        if rank == 0:
            save_weights(sys.argv[1], found)
