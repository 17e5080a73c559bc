"""What describes a U-Net and its process: guided-diffusion's flags, checked against each other."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import FlagError, flag
from ace_counterfactuals.guided_diffusion.schedule import NOISE_SCHEDULES

DEFAULT_CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    224: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    28: (1, 1, 2),
}
"""What a ``channel_mult`` of '' means, by ``image_size``."""

NORM_GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A U-Net, as it was trained."""

    num_channels: int = flag(128, "channels of the first level", low=1, told=True)
    num_res_blocks: int = flag(2, "residual blocks a level", low=1, told=True)
    channel_mult: str = flag(
        "", "width of each level in units of num_channels, e.g. 1,2,3,4; '' goes by image_size", told=True
    )
    num_heads: int = flag(4, "attention heads", low=1, told=True)
    num_head_channels: int = flag(-1, "channels a head; -1 goes by num_heads", low=-1, told=True)
    num_heads_upsample: int = flag(-1, "attention heads on the way up; -1 is num_heads", low=-1, told=True)
    attention_resolutions: str = flag("16,8", "resolutions with attention, as image_size // resolution", told=True)
    dropout: float = flag(0.0, "dropout in training", low=0, high=1, result=False)
    class_cond: bool = flag(False, "class-conditional model: denoises towards the target", told=True)
    use_checkpoint: bool = flag(False, "recompute each block in the backward pass: less memory", result=False)
    use_scale_shift_norm: bool = flag(True, "time embedding scales and shifts the normalised features", told=True)
    resblock_updown: bool = flag(False, "residual blocks resample, instead of convolutions", told=True)
    use_new_attention_order: bool = flag(False, "qkv channels ordered q, k, v first instead of heads first", told=True)
    use_fp16: bool = flag(
        False, "half precision in the U-Net's torso: float16 on CUDA, else bfloat16 where that is fast"
    )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The diffusion process that a U-Net was trained on."""

    learn_sigma: bool = flag(False, "the network predicts the variance too", told=True)
    diffusion_steps: int = flag(
        1000, "steps of the chain that the model was trained on", low=1, high=100_000, told=True
    )
    noise_schedule: str = flag("linear", "betas over the steps", choices=NOISE_SCHEDULES, told=True)
    use_kl: bool = flag(False, "train on the variational bound alone", result=False)
    predict_xstart: bool = flag(False, "the network predicts x_0 instead of the noise", told=True)
    predict: str = flag(
        "noise",
        "the network predicts the noise, or v, which is sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0",
        choices=("noise", "v"),
        told=True,
    )
    rescale_timesteps: bool = flag(False, "the network gets its steps times 1000/diffusion_steps", told=True)
    rescale_learned_sigmas: bool = flag(False, "train the variance with a weight of steps/1000", result=False)

    @property
    def predicts(self) -> str:
        """'noise', 'x_0' or 'v'.  Raises FlagError for two of them."""
        if self.predict_xstart and self.predict == "v":
            raise FlagError("predict", "v with predict_xstart True: a network predicts one thing; give one of them")
        return "x_0" if self.predict_xstart else self.predict


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ModelConfig):
    """A U-Net for pictures of a size.  Raises FlagError where the flags make no network.

    num_classes: of a class-conditional model: so many classes, or attributes; 0 is none.
    in_channels: of the pictures, 1 or 3.
    """

    image_size: int
    learn_sigma: bool
    num_classes: int = 0
    in_channels: int = 3

    def __post_init__(self) -> None:
        levels = len(self.mult)
        if not levels:
            sizes = ", ".join(map(str, sorted(DEFAULT_CHANNEL_MULT)))
            reason = f"has no default for image_size {self.image_size}, only for {sizes}"
            raise FlagError("channel_mult", f"'' {reason}; give one factor a level, such as 1,2,4")
        if self.num_res_blocks < 1:
            raise FlagError("num_res_blocks", f"{self.num_res_blocks}: choose at least 1")
        if self.class_cond and not self.num_classes:
            reason = "needs a number of classes, which this data set does not have; choose False"
            raise FlagError("class_cond", f"True {reason}")
        factor = 2 ** (levels - 1)
        if self.image_size % factor:
            reason = f"is halved {levels - 1} times by channel_mult {format_mult(self.mult)}"
            raise FlagError("image_size", f"{self.image_size} {reason}; choose a multiple of {factor}")
        for m, width in zip(self.mult, self.widths, strict=True):
            if width < 1 or width % NORM_GROUPS:
                reason = f"times {m:g} of channel_mult is a width of {width}; choose multiples of {NORM_GROUPS}"
                raise FlagError("num_channels", f"{self.num_channels} {reason}")
        self._check_heads()

    def _check_heads(self) -> None:
        """Every width at which attention stands must divide into heads."""
        last = len(self.widths) - 1
        widths = [w for level, w in enumerate(self.widths) if 2**level in self.attention or level == last]
        heads = {"num_heads": self.num_heads}
        if self.num_head_channels != -1:
            heads = {"num_head_channels": self.num_head_channels}
        elif self.num_heads_upsample != -1:
            heads["num_heads_upsample"] = self.num_heads_upsample
        for name, value in heads.items():
            for width in widths:
                if value < 1 or width % value:
                    divisors = f"choose a common divisor of {', '.join(map(str, dict.fromkeys(widths)))}"
                    reason = f"{value} does not divide the width {width} of an attention layer"
                    raise FlagError(name, f"{reason}; {divisors}")

    @property
    def mult(self) -> tuple[float, ...]:
        """Width of each level in units of ``num_channels``; () where '' has no default."""
        return parse_channel_mult(self.channel_mult, self.image_size)

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [int(m * self.num_channels) for m in self.mult]

    @property
    def attention(self) -> tuple[int, ...]:
        """Factors of downsampling at which attention stands, beside the middle block."""
        return attention_factors(self.attention_resolutions, self.image_size)

    @property
    def emb_channels(self) -> int:
        """Width of the embedding of steps and classes."""
        return 4 * self.num_channels

    def heads(self, channels: int, *, up: bool = False) -> int:
        """Of an attention layer of this width; up: on the way up."""
        if self.num_head_channels != -1:
            return channels // self.num_head_channels
        return self.num_heads_upsample if up and self.num_heads_upsample != -1 else self.num_heads


def parse_channel_mult(channel_mult: str, image_size: int) -> tuple[float, ...]:
    """Width of each level in units of ``num_channels``; () where '' has no default.  Raises FlagError."""
    if not channel_mult.strip():
        return DEFAULT_CHANNEL_MULT.get(image_size, ())
    try:
        mult = tuple(float(part) for part in channel_mult.split(","))
    except ValueError:
        mult = (0.0,)
    if not all(0 < m < math.inf for m in mult):
        raise FlagError("channel_mult", f"'{channel_mult}': wanted positive factors, one a level, such as 1,2,3,4")
    return mult


def attention_factors(attention_resolutions: str, image_size: int) -> tuple[int, ...]:
    """Factors of downsampling at which attention stands, ascending; '' is none.  Raises FlagError."""
    parts = [part.strip() for part in attention_resolutions.split(",")] if attention_resolutions.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        reason = "wanted sizes in pixels, such as 32,16,8"
        raise FlagError("attention_resolutions", f"'{attention_resolutions}': {reason}")
    return tuple(sorted({image_size // int(part) for part in parts}))


def format_mult(mult: Iterable[float]) -> str:
    """As ``channel_mult`` spells it."""
    return ",".join(f"{m:g}" for m in mult)
