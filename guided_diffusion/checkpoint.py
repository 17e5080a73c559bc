"""Flags <-> architecture <-> state dict of a diffusion U-Net.

A state dict's names and shapes tell all of the architecture but the number of attention heads, so that a file which
the flags do not fit is answered with the flags that it wants.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.config import (
    DEFAULT_CHANNEL_MULT,
    UNetConfig,
    attention_factors,
    format_mult,
    parse_channel_mult,
)
from ace_counterfactuals.guided_diffusion.unet import UNetModel

TOLD = ("num_classes", "in_channels")  # of UNetConfig, by the file and by no flag


def build_unet(
    flags: Mapping[str, Any], state: Mapping[str, Tensor] | None = None, path: str = "the file"
) -> UNetModel:
    """The U-Net that ``flags`` (the fields of ``UNetConfig``, others are ignored) describe.

    With a ``state`` it holds its weights as float32, frozen and in eval mode; the number of classes is the file's.
    path: what messages call the file.  Raises FlagError with the flags that a state wants where they are others,
    ValueError for a state that no flags describe.
    """
    wanted = {item.name: flags[item.name] for item in fields(UNetConfig) if item.name in flags}
    if state is None:
        return UNetModel(UNetConfig(**wanted))
    wanted |= _check_flags(wanted, state, path)
    with torch.device("meta"):
        model = UNetModel(UNetConfig(**wanted))
    for name, value in state.items():
        if not value.is_floating_point():
            raise ValueError(f"{path} is no diffusion U-Net of a known kind: it has {name} of {value.dtype}")
    try:
        model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except RuntimeError as error:  # a headline, then what is missing, unknown or of another shape
        faults = textwrap.shorten(str(error).partition("\n")[2], 300)
        raise ValueError(f"{path} is no diffusion U-Net of a known kind: {faults}") from None
    return model.requires_grad_(False).eval()


def read_flags(state: Mapping[str, Tensor], image_size: int, path: str = "the file") -> dict[str, Any]:
    """The flags that names and shapes tell, for pictures of ``image_size``.  Raises ValueError for another network.

    ``num_classes`` is there if the model is conditional, ``resblock_updown`` if it has more than one level, and
    ``in_channels``, which is no flag, always.
    """

    def size(name: str, dim: int = 0) -> int:
        if name not in state or state[name].ndim <= dim or not state[name].numel():
            raise ValueError(f"{path} is no diffusion U-Net, or an incomplete one: no usable {name} in it")
        return state[name].shape[dim]

    channels, inputs, outputs = size("time_embed.0.weight", 1), size("input_blocks.0.0.weight", 1), size("out.2.weight")
    if inputs not in (1, 3) or outputs not in (inputs, 2 * inputs):
        wanted = "wanted a U-Net that maps 3 to 3, or to 6 with learn_sigma True, or 1 to 1, or to 2"
        raise ValueError(f"{path} maps {inputs} channels to {outputs}; {wanted}")
    # Every level but the last on the way up closes with an upsampler, which is a ResBlock or holds a `conv`.
    upsampler = re.compile(r"output_blocks\.\d+\.[12]\.(in_layers\.0|conv)\.weight")
    ups = [match[1] for match in map(upsampler.fullmatch, state) if match]
    levels, total = len(ups) + 1, len({name.split(".")[1] for name in state if name.startswith("output_blocks.")})
    blocks = total // levels
    if total % levels or blocks < 2:
        raise ValueError(f"{path} is an incomplete diffusion U-Net: {total} output blocks do not make {levels} levels")
    firsts = [1 + level * blocks for level in range(levels)]
    widths = [size(f"input_blocks.{first}.0.in_layers.2.weight") for first in firsts]
    attention = [2**i for i, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in state]
    found = {
        "image_size": image_size,
        "in_channels": inputs,
        "num_channels": channels,
        "num_res_blocks": blocks - 1,
        "channel_mult": format_mult(width / channels for width in widths),
        "attention_resolutions": _in_pixels(attention, image_size),
        "learn_sigma": outputs == 2 * inputs,
        "class_cond": "label_emb.weight" in state,
        "use_scale_shift_norm": size("input_blocks.1.0.emb_layers.1.weight") == 2 * widths[0],
    }
    if ups:
        found["resblock_updown"] = "conv" not in ups
    if found["class_cond"]:
        found["num_classes"] = size("label_emb.weight")
    return found


def _in_pixels(factors: Iterable[int], image_size: int) -> str:
    """As ``attention_resolutions`` spells factors of downsampling."""
    return ",".join(str(image_size // factor) for factor in factors if factor <= image_size)


def _check_flags(flags: Mapping[str, Any], state: Mapping[str, Tensor], path: str) -> dict[str, int]:
    """Raise FlagError with what ``state`` wants where ``flags`` are others; returns what it tells beside them: the
    channels of its pictures, and its number of classes, or 0."""
    sizes = [flags["image_size"]]
    if not flags["channel_mult"].strip():
        sizes += DEFAULT_CHANNEL_MULT  # another size may explain width and attention
    candidates = [read_flags(state, size, path) for size in sizes]
    explained = (one for one in candidates if not {"channel_mult", "attention_resolutions"} & differing(flags, one))
    right = next(explained, candidates[0])
    wrong = [name for name in right if name in differing(flags, right)]
    if wrong:
        told = [f"{name} {_quoted(flags[name])}, but {path} has {_quoted(right[name])}" for name in wrong]
        cure = ", ".join(f"{name} {_quoted(right[name])}" for name in wrong)
        raise FlagError(wrong[0], f"{'; '.join(told).removeprefix(wrong[0] + ' ')}; give {cure}")
    classes = right.get("num_classes", 0)
    asked = flags.get("num_classes") or classes
    if asked != classes and flags["class_cond"]:
        reason = f"this data set has {asked} classes, but {path} has {classes}"
        raise FlagError("class_cond", f"True: {reason}; choose the one it was trained on")
    return {"num_classes": classes, "in_channels": right["in_channels"]}


def _quoted(value: object) -> str:
    return str(value) or "''"


def differing(flags: Mapping[str, Any], right: Mapping[str, Any]) -> set[str]:
    """Names of ``right`` of which ``flags`` ask something else, had they its ``image_size``."""
    size, levels = right["image_size"], right["channel_mult"].count(",") + 1
    factors = attention_factors(flags["attention_resolutions"], size)
    asked = {
        **flags,
        "channel_mult": format_mult(parse_channel_mult(flags["channel_mult"], size)),
        "attention_resolutions": _in_pixels([f for f in factors if f in [2**i for i in range(levels)]], size),
    }
    return {name for name, value in right.items() if name not in TOLD and asked[name] != value}
