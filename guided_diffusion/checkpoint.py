"""Flags <-> architecture <-> state dict of a diffusion U-Net.

A state dict's names and shapes tell all of the architecture but the number of attention heads, so that a file which
the flags do not fit is answered with the flags that it wants.
"""

import re
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from ace_counterfactuals.guided_diffusion.config import (
    DEFAULT_CHANNEL_MULT,
    SettingError,
    UNetConfig,
    attention_factors,
    format_mult,
    parse_channel_mult,
)
from ace_counterfactuals.guided_diffusion.unet import UNetModel


def build_unet(flags: Mapping[str, object], state: Mapping[str, Tensor] | None = None, path: str = "") -> UNetModel:
    """The U-Net that ``flags`` (the fields of ``UNetConfig``, others are ignored) describe.

    With a ``state`` it holds its weights as float32, frozen and in eval mode; the number of classes is the file's.
    path: what messages call the file.  Raises SettingError with the flags that a state wants where they are others,
    ValueError for a state that no flags describe.
    """
    wanted = {item.name: flags[item.name] for item in fields(UNetConfig) if item.name in flags}
    if state is None:
        return UNetModel(UNetConfig(**wanted))
    path = path or "the file"
    found = _read_architecture(state, path)
    _refuse_wrong_flags(wanted, found, path)
    wanted["num_classes"] = found.get("num_classes")
    with torch.device("meta"):
        model = UNetModel(UNetConfig(**wanted))
    _refuse_wrong_shapes(model, state, path)
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return model.requires_grad_(False).eval()


def suggest_flags(state: Mapping[str, Tensor], image_size: int, path: str = "the file") -> dict[str, object]:
    """The flags that names and shapes tell; ``attention_resolutions`` is for pictures of ``image_size``.

    ``num_classes`` is there if the model is conditional, ``resblock_updown`` if it has more than one level.
    """
    return _in_pixels(_read_architecture(state, path), image_size)


def _in_pixels(found: Mapping[str, object], image_size: int) -> dict[str, object]:
    """Flags of an architecture, whose attention is known by its factors of downsampling."""
    flags = dict(found)
    resolutions = [image_size // factor for factor in flags.pop("attention_factors") if factor <= image_size]
    return {**flags, "attention_resolutions": ",".join(map(str, resolutions))}


def _read_architecture(state: Mapping[str, Tensor], path: str) -> dict[str, object]:
    _refuse_other_files(state, path)

    def size(name: str, dim: int = 0) -> int:
        if name not in state or state[name].ndim <= dim:
            raise ValueError(f"{path} is an incomplete diffusion U-Net: no usable {name} in it; fetch the file again")
        return state[name].shape[dim]

    channels, inputs, outputs = size("time_embed.0.weight", 1), size("input_blocks.0.0.weight", 1), size("out.2.weight")
    if inputs != 3 or outputs not in (3, 6):
        raise ValueError(
            f"{path} maps {inputs} channels to {outputs}; wanted a U-Net that maps 3 to 3, or to 6 with "
            "learn_sigma True"
        )
    # Every level but the last on the way up closes with an upsampler, which is a ResBlock or holds a `conv`.
    ups = [m[2] for m in map(re.compile(r"output_blocks\.(\d+)\.[12]\.(in_layers\.0|conv)\.weight").match, state) if m]
    levels, total = len(ups) + 1, len({name.split(".")[1] for name in state if name.startswith("output_blocks.")})
    blocks = total // levels
    if total % levels or blocks < 2:
        raise ValueError(f"{path} is an incomplete diffusion U-Net: {total} output blocks do not make {levels} levels")
    firsts = [1 + level * blocks for level in range(levels)]
    widths = [size(f"input_blocks.{first}.0.in_layers.2.weight") for first in firsts]
    found = {
        "num_channels": channels,
        "num_res_blocks": blocks - 1,
        "channel_mult": format_mult(width / channels for width in widths),
        "attention_factors": tuple(
            2**i for i, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in state
        ),
        "learn_sigma": outputs == 6,
        "class_cond": "label_emb.weight" in state,
        "use_scale_shift_norm": size("input_blocks.1.0.emb_layers.1.weight") == 2 * widths[0],
    }
    if ups:
        found["resblock_updown"] = "conv" not in ups
    if found["class_cond"]:
        found["num_classes"] = size("label_emb.weight")
    return found


def _refuse_other_files(state: object, path: str) -> None:
    landmarks = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight")
    sound = isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())
    if not sound or not all(name in state for name in landmarks):
        listed = ", ".join(map(str, list(state)[:3])) if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise ValueError(f"{path} is no diffusion U-Net: it holds {listed or 'nothing'}")


def _refuse_wrong_flags(wanted: Mapping[str, object], found: Mapping[str, object], path: str) -> None:
    wrong = _wrong_flags(wanted, found)
    if "channel_mult" in wrong and not wanted["channel_mult"].strip():
        levels = {"channel_mult", "attention_factors"}
        for size in DEFAULT_CHANNEL_MULT:
            if not levels & set(_wrong_flags({**wanted, "image_size": size}, found)):
                found = {**found, "image_size": size}
                wrong = ["image_size"] + [name for name in wrong if name not in levels]
                break
    if not wrong:
        return
    right = _in_pixels(found, found.get("image_size", wanted["image_size"]))
    wrong = ["attention_resolutions" if name == "attention_factors" else name for name in wrong]
    if wrong == ["num_classes"]:
        reason = f"this data set has {wanted['num_classes']} classes, but {path} has {right['num_classes']}"
        raise SettingError("class_cond", f"True: {reason}; choose the one it was trained on")
    wrong = [name for name in wrong if name != "num_classes"]
    told = [f"{name} {_quoted(wanted[name])}, but {path} has {_quoted(right[name])}" for name in wrong]
    cure = ", ".join(f"{name} {_quoted(right[name])}" for name in wrong)
    raise SettingError(wrong[0], f"{'; '.join(told).removeprefix(wrong[0] + ' ')}; give {cure}")


def _quoted(value: object) -> str:
    return str(value) or "''"


def _wrong_flags(wanted: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """Names of ``found`` of which ``wanted`` asks something else."""

    def fits(name: str) -> bool:
        if name == "channel_mult":
            mult = parse_channel_mult(wanted[name], wanted["image_size"])
            return mult is not None and format_mult(mult) == found[name]
        if name == "attention_factors":
            levels = found["channel_mult"].count(",") + 1
            asked = attention_factors(wanted["attention_resolutions"], wanted["image_size"])
            return {factor for factor in asked if factor in {2**level for level in range(levels)}} == set(found[name])
        if name == "num_classes":
            return not wanted["class_cond"] or wanted.get(name) in (None, found[name])
        return wanted[name] == found[name]

    return [name for name in found if not fits(name)]


def _refuse_wrong_shapes(model: UNetModel, state: Mapping[str, Tensor], path: str) -> None:
    """What no flag explains: names too many or too few, odd shapes, numbers that are no floats."""
    wanted = model.state_dict()
    faults = [f"no {name}" for name in wanted if name not in state]
    faults += [f"an unknown {name}" for name in state if name not in wanted]
    for name, value in wanted.items():
        found = state.get(name, value)
        if found.shape != value.shape:
            faults.append(f"{name} of shape {tuple(found.shape)} instead of {tuple(value.shape)}")
        elif not found.is_floating_point():
            faults.append(f"{name} of {found.dtype}")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{path} is no diffusion U-Net of a known kind: it has {', '.join(faults[:3])}{more}")
