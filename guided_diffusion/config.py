"""What describes a U-Net: guided-diffusion's flags, checked against each other."""

from collections.abc import Iterable
from dataclasses import dataclass

DEFAULT_CHANNEL_MULT = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    224: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    28: (1, 1, 2),
}
"""What a ``channel_mult`` of '' means, by ``image_size``."""

NORM_GROUPS = 32


class SettingError(ValueError):
    """A setting that makes no network, or not the file's.

    field: its name; reason: begins with the value, says what was wanted and names other settings as they are spelled.
    """

    def __init__(self, field: str, reason: str):
        super().__init__(f"{field} {reason}")
        self.field, self.reason = field, reason


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A U-Net in guided-diffusion's flags.  Raises SettingError where they make no network.

    channel_mult: width of each level in units of ``num_channels``, such as 1,2,3,4; '' goes by ``image_size``.
    attention_resolutions: attention stands at downsampling factors ``image_size`` // each; '' is none.
    num_heads_upsample: -1 is ``num_heads``; num_head_channels: -1 goes by ``num_heads``.
    num_classes: of a class-conditional model: so many classes, or attributes.
    """

    image_size: int
    num_channels: int
    num_res_blocks: int
    channel_mult: str
    attention_resolutions: str
    learn_sigma: bool
    class_cond: bool
    dropout: float
    use_checkpoint: bool
    num_heads: int
    num_head_channels: int
    num_heads_upsample: int
    use_scale_shift_norm: bool
    resblock_updown: bool
    use_new_attention_order: bool
    num_classes: int | None = None

    def __post_init__(self):
        if parse_channel_mult(self.channel_mult, self.image_size) is None:
            sizes = ", ".join(map(str, sorted(DEFAULT_CHANNEL_MULT)))
            reason = f"has no default for image_size {self.image_size}, only for {sizes}"
            raise SettingError("channel_mult", f"'' {reason}; give one factor a level, such as 1,2,4")
        if self.num_res_blocks < 1:
            raise SettingError("num_res_blocks", f"{self.num_res_blocks}: choose at least 1")
        if self.class_cond and not self.num_classes:
            reason = "needs a number of classes, which this data set does not have; choose False"
            raise SettingError("class_cond", f"True {reason}")
        self._check_widths()
        self._check_heads()

    @property
    def mult(self) -> tuple[float, ...]:
        """Width of each level in units of ``num_channels``."""
        return parse_channel_mult(self.channel_mult, self.image_size) or ()

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

    def _check_widths(self) -> None:
        levels = len(self.mult)
        factor = 2 ** (levels - 1)
        if self.image_size % factor:
            reason = f"is halved {levels - 1} times by channel_mult {format_mult(self.mult)}"
            raise SettingError("image_size", f"{self.image_size} {reason}; choose a multiple of {factor}")
        for m, width in zip(self.mult, self.widths, strict=True):
            if width < 1 or width % NORM_GROUPS:
                reason = f"times {m:g} of channel_mult is a width of {width}; choose multiples of {NORM_GROUPS}"
                raise SettingError("num_channels", f"{self.num_channels} {reason}")

    def _check_heads(self) -> None:
        """Every width at which attention stands must divide into heads."""
        last = len(self.widths) - 1
        widths = [w for level, w in enumerate(self.widths) if 2**level in self.attention or level == last]
        names = ["num_heads"] + ["num_heads_upsample"] * (self.num_heads_upsample != -1)
        for name in ["num_head_channels"] if self.num_head_channels != -1 else names:
            value = getattr(self, name)
            for width in widths:
                if value < 1 or width % value:
                    divisors = f"choose a common divisor of {', '.join(map(str, dict.fromkeys(widths)))}"
                    raise SettingError(
                        name, f"{value} does not divide the width {width} of an attention layer; {divisors}"
                    )


def parse_channel_mult(channel_mult: str, image_size: int) -> tuple[float, ...] | None:
    """Width of each level in units of ``num_channels``; None where '' has no default.  Raises SettingError."""
    if not channel_mult.strip():
        return DEFAULT_CHANNEL_MULT.get(image_size)
    try:
        mult = tuple(float(part) for part in channel_mult.split(","))
    except ValueError:
        mult = (0.0,)
    if min(mult) <= 0:
        reason = "wanted positive factors, one a level, such as 1,2,3,4"
        raise SettingError("channel_mult", f"'{channel_mult}': {reason}")
    return mult


def attention_factors(attention_resolutions: str, image_size: int) -> tuple[int, ...]:
    """Factors of downsampling at which attention stands, ascending; '' is none.  Raises SettingError."""
    parts = [part.strip() for part in attention_resolutions.split(",")] if attention_resolutions.strip() else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        reason = "wanted sizes in pixels, such as 32,16,8"
        raise SettingError("attention_resolutions", f"'{attention_resolutions}': {reason}")
    return tuple(sorted({image_size // int(part) for part in parts}))


def format_mult(mult: Iterable[float]) -> str:
    """As ``channel_mult`` spells it."""
    return ",".join(f"{m:g}" for m in mult)
