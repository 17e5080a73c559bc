"""A student of a diffusion model: a small network that predicts, at one amount of noise, what the model predicts there.

The gradients of a one-step attack go through it in the place of the model (``--attack_student``).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.lean import Conv2d, Pointwise2d
from ace_counterfactuals.guided_diffusion.unet import NormSiLU32, zero_init
from ace_counterfactuals.models.loading import load_state

GROUPS = 8  # of channels that are normalised together
LEVELS, SMALLEST = 5, 4  # at most, and pixels that a side has at least on the last
WIDEST = 3  # times the width of the first level


@dataclass(frozen=True)
class StudentConfig:
    """in_channels: of the pictures.  width: of the first level, at half of their resolution."""

    in_channels: int
    width: int
    levels: int


class Block(nn.Module):
    """Two convolutions beside a shortcut.  (N, width, H, W) -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            NormSiLU32(width, GROUPS),
            Conv2d(width, width, 3, padding=1),
            NormSiLU32(width, GROUPS),
            zero_init(Conv2d(width, width, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Student(nn.Module):
    """x_t (N, C, H, W) in [-1, 1] -> the x_0 expected there, not clipped: a U-Net from half of the resolution on.

    signal: alphas_cumprod at the one step t that it is trained at.
    """

    signal: Tensor

    def __init__(self, config: StudentConfig, signal: float = 0.0):
        super().__init__()
        self.config = config
        widths = [config.width * min(1 + level, WIDEST) for level in range(config.levels)]
        steps = list(zip(widths, widths[1:], strict=False))
        self.register_buffer("signal", torch.tensor(signal))
        self.first = Conv2d(4 * config.in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in steps)
        self.before = nn.ModuleList(Block(width) for width in widths)
        self.after = nn.ModuleList(Block(width) for width in widths)
        self.up = nn.ModuleList(Pointwise2d(coarse + fine, fine, 1) for fine, coarse in steps)
        self.last = nn.Sequential(
            NormSiLU32(widths[0], GROUPS), Conv2d(widths[0], 4 * config.in_channels, 3, padding=1)
        )

    def forward(self, x_t: Tensor) -> Tensor:
        h, skips = self.before[0](self.first(F.pixel_unshuffle(x_t.to(self.first.weight.dtype), 2))), []
        for down, block in zip(self.down, self.before[1:], strict=True):
            skips.append(h)
            h = block(down(h))
        h = self.after[-1](h)
        for up, block, fine in zip(reversed(self.up), reversed(self.after[:-1]), reversed(skips), strict=True):
            h = block(up(torch.cat([F.interpolate(h, scale_factor=2.0), fine], dim=1)))
        return F.pixel_shuffle(self.last(h), 2).contiguous().to(x_t.dtype)


def levels_of(height: int, width: int) -> int:
    """How often both sides can be halved, as far as that is of use; 0 where they cannot."""
    levels = 0
    while levels < LEVELS and not height % 2 and not width % 2 and min(height, width) // 2 >= SMALLEST:
        height, width, levels = height // 2, width // 2, levels + 1
    return levels


def new_student(channels: int, shape: tuple[int, int], width: int, signal: float) -> Student:
    """For pictures of these sizes.  Raises FlagError for sides that cannot be halved, and for a width of no groups."""
    if width % GROUPS:
        raise FlagError("student_width", f"{width}: wanted a multiple of {GROUPS}")
    levels = levels_of(*shape)
    if not levels:
        sides = " x ".join(map(str, shape))
        raise FlagError("distill", f"pictures of {sides}: their sides are halved; give an even image_size from 8 on")
    return Student(StudentConfig(channels, width, levels), signal)


def load_student(path) -> Student:
    """Of a file of ``train_diffusion.py --distill True``, frozen, on the CPU.  Raises ValueError for another file."""
    state = load_state(path)
    try:
        outputs, inputs = state["first.weight"].shape[:2]
        levels = len({name.split(".")[1] for name in state if name.startswith("before.")})
        student = Student(StudentConfig(inputs // 4, outputs, levels))
        student.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError, ZeroDivisionError):
        raise ValueError(f"{path} is no student; train_diffusion.py --distill True makes one of model_path") from None
    return student.requires_grad_(False).eval()
