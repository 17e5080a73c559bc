"""Flags and networks that several tests of the U-Net share."""

import json

import torch
from torch import nn

from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.config import UNetConfig
from ace_counterfactuals.guided_diffusion.unet import UNetModel
from tests.support.paths import GOLDEN as RECORDED

FLAGS = {
    "image_size": 64,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "",
    "attention_resolutions": "32,16,8",
    "learn_sigma": True,
    "class_cond": False,
    "dropout": 0.0,
    "use_checkpoint": False,
    "num_heads": 4,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_new_attention_order": False,
}

TOY = {**FLAGS, "image_size": 8, "channel_mult": "1,2", "attention_resolutions": "4"}

GOLDEN = {
    "unet_celeba.pt": FLAGS,
    "unet_celebahq.pt": {**FLAGS, "num_head_channels": 32},
    "unet_bdd.pt": {**FLAGS, "image_size": 256, "channel_mult": "1,2,3,4", "attention_resolutions": "16,8"},
    "unet_imagenet.pt": {**FLAGS, "image_size": 256, "num_head_channels": 32},
}

WEIGHTS = json.loads((RECORDED / "weights.json").read_text())
SHAPES = {file: {name: shape for _, _, name, shape in WEIGHTS[file]["tensors"]} for file in GOLDEN}


def meta_unet(**flags) -> UNetModel:
    """Names and shapes without numbers."""
    with torch.device("meta"):
        return UNetModel(UNetConfig(**flags))


def toy_unet(dtype: torch.dtype = torch.float32, **changes) -> UNetModel:
    """A small U-Net of which no layer is zero, the same for equal shapes."""
    return randomised(build_unet({**TOY, **changes})).to(dtype).eval()


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model
