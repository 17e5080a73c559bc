"""Flags <-> architecture <-> state dict of a diffusion U-Net.

A state dict's names and shapes tell all of the architecture but the number of attention heads, so that a file which
the flags do not fit is answered with the flags that it wants.
"""

import inspect
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ace_counterfactuals.guided_diffusion.unet import UNetModel

DEFAULT_CHANNEL_MULT = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    224: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    28: (1, 1, 2),
}
"""What ``--channel_mult ''`` means, by ``--image_size``."""

NORM_GROUPS = 32

NOT_A_UNET = {
    "param_groups": "the state of an optimiser (opt*.pt); the weights are in model*.pt or ema*.pt beside it",
    "optimizer": "the state of a training run; the weights are in the files beside it",
    "feat_extract": "a classifier or an attribute oracle",
    "model_state_dict": "a classifier or an attribute oracle",
    "fc.weight": "a ResNet classifier",
    "state_dict": "a checkpoint that wraps the weights of another network",
    "time_embed.0.weight": "a part of a U-Net, or a classifier of noisy pictures",
}
"""Entry that gives another kind of file away -> what the file seems to be."""


def unet_kwargs(
    *,
    image_size: int,
    num_channels: int,
    num_res_blocks: int,
    channel_mult: str,
    attention_resolutions: str,
    learn_sigma: bool,
    class_cond: bool,
    dropout: float,
    use_checkpoint: bool,
    num_heads: int,
    num_head_channels: int,
    num_heads_upsample: int,
    use_scale_shift_norm: bool,
    resblock_updown: bool,
    use_new_attention_order: bool,
    num_classes: int | None = None,
) -> dict[str, object]:
    """The arguments of ``UNetModel`` that the flags of these names describe.

    num_classes: what a class-conditional model is conditioned on: so many classes, or attributes.
    """
    mult = parse_channel_mult(channel_mult, image_size)
    if mult is None:
        raise ValueError(
            f"--channel_mult '' has no default for --image_size {image_size}, only for "
            f"{', '.join(map(str, sorted(DEFAULT_CHANNEL_MULT)))}; give one factor a level, such as 1,2,4"
        )
    if num_res_blocks < 1:
        raise ValueError(f"--num_res_blocks {num_res_blocks}: choose at least 1")
    if class_cond and not num_classes:
        raise ValueError("--class_cond True needs a number of classes, which this data set does not have; choose False")
    attention = attention_factors(attention_resolutions, image_size)
    _check_sizes(image_size, num_channels, mult)
    attended = [
        int(m * num_channels) for level, m in enumerate(mult) if 2**level in attention or level == len(mult) - 1
    ]
    _check_heads(attended, num_heads, num_head_channels, num_heads_upsample)
    return {
        "model_channels": num_channels,
        "out_channels": 6 if learn_sigma else 3,
        "num_res_blocks": num_res_blocks,
        "attention_downsampling": attention,
        "channel_mult": mult,
        "num_classes": num_classes if class_cond else None,
        "dropout": dropout,
        "use_checkpoint": use_checkpoint,
        "num_heads": num_heads,
        "num_head_channels": num_head_channels,
        "num_heads_upsample": num_heads_upsample,
        "use_scale_shift_norm": use_scale_shift_norm,
        "resblock_updown": resblock_updown,
        "use_new_attention_order": use_new_attention_order,
    }


def parse_channel_mult(channel_mult: str, image_size: int) -> tuple[float, ...] | None:
    """Width of each level in units of ``--num_channels``; None where '' has no default."""
    if not channel_mult.strip():
        return DEFAULT_CHANNEL_MULT.get(image_size)
    try:
        mult = tuple(float(part) for part in channel_mult.split(","))
    except ValueError:
        mult = (0.0,)
    if min(mult) <= 0:
        raise ValueError(f"--channel_mult '{channel_mult}': wanted positive factors, one a level, such as 1,2,3,4")
    return mult


def attention_factors(attention_resolutions: str, image_size: int) -> tuple[int, ...]:
    """Factors of downsampling at which attention stands; '' is none."""
    parts = [part.strip() for part in attention_resolutions.split(",")] if attention_resolutions.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--attention_resolutions '{attention_resolutions}': wanted sizes in pixels, such as 32,16,8")
    return tuple(sorted({image_size // int(part) for part in parts}))


def _check_sizes(image_size: int, num_channels: int, mult: tuple[float, ...]) -> None:
    factor = 2 ** (len(mult) - 1)
    if image_size % factor:
        raise ValueError(
            f"--image_size {image_size} is halved {len(mult) - 1} times by --channel_mult {format_mult(mult)}; "
            f"choose a multiple of {factor}"
        )
    for m in mult:
        width = int(m * num_channels)
        if width < 1 or width % NORM_GROUPS:
            raise ValueError(
                f"--num_channels {num_channels} times {m:g} of --channel_mult is a width of {width}; "
                f"choose multiples of {NORM_GROUPS}"
            )


def _check_heads(widths: list[int], num_heads: int, num_head_channels: int, num_heads_upsample: int) -> None:
    """Every width at which attention stands must divide into heads."""
    flags = {"num_heads": num_heads}
    if num_heads_upsample != -1:
        flags["num_heads_upsample"] = num_heads_upsample
    if num_head_channels != -1:
        flags = {"num_head_channels": num_head_channels}
    for flag, value in flags.items():
        for width in widths:
            if value < 1 or width % value:
                raise ValueError(
                    f"--{flag} {value} does not divide the width {width} of an attention layer; "
                    f"choose a common divisor of {', '.join(map(str, dict.fromkeys(widths)))}"
                )


def format_mult(mult: Iterable[float]) -> str:
    return ",".join(f"{m:g}" for m in mult)


def build_unet(flags: Mapping[str, object], state: Mapping[str, Tensor] | None = None, path: str = "") -> UNetModel:
    """The U-Net that ``flags`` (those of ``unet_kwargs``, others are ignored) describe.

    With a ``state`` it holds its weights as float32, frozen and in eval mode; the number of classes is the file's. A
    state that does not fit is refused with the flags that would.  path: the name of the file for messages.
    """
    wanted = {name: flags[name] for name in inspect.signature(unet_kwargs).parameters if name in flags}
    if state is None:
        return UNetModel(**unet_kwargs(**wanted))
    path = path or "the file"
    found = _read_architecture(state, path)
    _refuse_wrong_flags(wanted, found, path)
    wanted["num_classes"] = found.get("num_classes")
    with torch.device("meta"):
        model = UNetModel(**unet_kwargs(**wanted))
    _refuse_wrong_shapes(model, state, path)
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return model.requires_grad_(False).eval()


def suggest_flags(state: Mapping[str, Tensor], image_size: int, path: str = "the file") -> dict[str, object]:
    """The flags that names and shapes tell; ``attention_resolutions`` is for pictures of ``image_size``.

    ``num_classes`` is there if the model is conditional, ``resblock_updown`` if it has more than one level.
    """
    return _at_size(_read_architecture(state, path), image_size)


def _at_size(found: Mapping[str, object], image_size: int) -> dict[str, object]:
    """Flags of an architecture, with its attention in pixels."""
    flags = {name: value for name, value in found.items() if name != "attention_factors"}
    resolutions = [image_size // factor for factor in found["attention_factors"] if factor <= image_size]
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
            "--learn_sigma True"
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
    """A file that holds no U-Net is named for what it is."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}; wanted the state dict of a diffusion U-Net")
    keys = [str(key) for key in state]
    landmarks = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight")
    tensors = all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items())
    if tensors and all(name in state for name in landmarks) and any(key.startswith("output_blocks.") for key in keys):
        return
    guess = next((f"; it looks like {kind}" for entry, kind in NOT_A_UNET.items() if entry in keys), "")
    listed = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    raise ValueError(f"{path} is no diffusion U-Net: it holds {listed or 'nothing'}{guess}; check --model_path")


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
    right = _at_size(found, found.get("image_size", wanted["image_size"]))
    told, cure = [], []
    for name in ("attention_resolutions" if name == "attention_factors" else name for name in wrong):
        if name == "num_classes":
            told.append(f"this data set has {wanted[name]} classes, but {path} has {right[name]}")
        else:
            told.append(f"--{name} {_quoted(wanted[name])}, but {path} has {_quoted(right[name])}")
            cure.append(f"--{name} {_quoted(right[name])}")
    raise ValueError("; ".join(told) + (f"; give {' '.join(cure)}" if cure else "; choose the one it was trained on"))


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
    """What no flag explains: names too many or too few, or odd shapes."""
    wanted, found = ({name: tuple(value.shape) for name, value in d.items()} for d in (model.state_dict(), state))
    faults = [f"no {name}" for name in wanted if name not in found]
    faults += [f"an unknown {name}" for name in found if name not in wanted]
    faults += [
        f"{name} of shape {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{path} is no diffusion U-Net of a known kind: it has {', '.join(faults[:3])}{more}")
