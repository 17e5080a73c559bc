"""Picture files: decoding them to RGB, resizing. A file that does not decode is an UnreadableImage."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ace_counterfactuals.core.base.reading import open_regular

# Named, because Pillow goes by content: a file called .jpg that holds PostScript would start Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
RANGED = "give image_range LOW,HIGH, which maps them to [0, 1]"
SAID = "said"  # in what Pillow tells of a decoded picture: what its user should know
Content = Callable[[Path], bytes]


class UnreadableImage(ValueError):
    """A picture that cannot be decoded; ``index`` is its place in the data set, where it is known."""

    def __init__(self, path: Path, reason: str, index: int | None = None) -> None:
        super().__init__(f"{path}: unreadable picture: {reason}")
        self.path, self.reason, self.index = path, reason, index


@contextmanager
def opened(path: Path, content: Content | None = None) -> Iterator[Image.Image]:
    """The picture, of which the header alone is read.  Raises UnreadableImage, also for what fails within."""
    try:
        with io.BytesIO(content(path)) if content else open_regular(path) as file:
            if not file.read(1):
                raise ValueError("the file is empty")
            file.seek(0)
            with Image.open(file, formats=_formats(file)) as image:
                check_size(image.width, image.height)
                yield image
    except Exception as error:  # a plug-in of Pillow lets through whatever its parser stumbles on
        raise UnreadableImage(path, _reason(error).removeprefix(f"{path}: ")) from None


def _formats(file: BinaryIO) -> tuple[str, ...]:
    """Those to try: two of them only where the content says so, since not every Pillow reads them."""
    head = file.read(64)
    file.seek(0)
    if head.startswith(b"\x93NUMPY"):
        raise ValueError(f"holds numbers without a range; {RANGED}")
    if head[4:8] != b"ftyp":
        return FORMATS
    if b"avif" in head or b"avis" in head:
        if ".avif" not in Image.registered_extensions():
            raise ValueError("is AVIF, which this Pillow does not read: pip install -U pillow, or save it as PNG")
        return ("AVIF",)
    try:
        pillow_heif = import_module("pillow_heif")
    except ImportError:
        raise ValueError(
            "is HEIC, which Pillow does not read alone: pip install pillow-heif, or save it as PNG"
        ) from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height, by the header.  Raises UnreadableImage."""
    with opened(path) as image:
        return image.size


def decode(
    path: Path,
    *,
    upright: bool = False,
    size: tuple[int, int] | None = None,
    background: str = "white",
    content: Content | None = None,
) -> Image.Image:
    """The picture as 8-bit RGB; ``upright`` turns it as its EXIF orientation says (the original never does).

    background: what a transparent one is laid on.  size: what width and height must be.  content: gives the bytes of
    what is no file.  Raises UnreadableImage, also of a picture of more pixels than Pillow takes without a warning.
    JPEG ``draft`` is not used: scaling inside the decoder gives other pixels than resizing what it decodes.
    """
    with opened(path, content) as image:
        if size not in (None, image.size):
            raise ValueError(f"is {image.width} x {image.height} pixels, wanted {' x '.join(map(str, size))}")
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image, background)


def resize_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size``, then the central square."""
    from torchvision.transforms.functional import center_crop, resize  # takes as long as torch itself

    short, long = sorted(image.size)
    check_size(size, size * long // short)
    return center_crop(resize(image, size), [size, size])


def resize_wide(image: Image.Image, size: int) -> Image.Image:
    """To ``size`` rows and twice as many columns, bicubic: the driving scenes of BDD."""
    return image.resize((2 * size, size), Image.Resampling.BICUBIC)


def is_grey(image: Image.Image) -> bool:
    """Whether the channels of an RGB picture are equal."""
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [0, 1], exactly x / 255."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous().float().div(255)


def to_pil(picture: Tensor) -> Image.Image:
    """(3, H, W) or (1, H, W) in [0, 1] -> 8-bit picture, rounded (the original truncates)."""
    levels = (picture * 255).round().clamp(0, 255).byte().cpu().numpy()
    return Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))


def to_rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _sixteen_bits(image).convert("RGB")
    if image.mode == "F":
        raise ValueError(f"its pixels are floating-point numbers without a range; {RANGED}")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB")
        if layer.getchannel("A").getextrema() != (255, 255):
            laid.info[SAID] = f"transparent pictures are laid on background {background}"
        return laid
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits to 8, 65535 to 255; Pillow's own conversion would clip at 255."""
    grey = np.array(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(f"its pixels run from {grey.min()} to {grey.max()}; at most 16 bits can be read, or {RANGED}")
    return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))


def check_size(width: int, height: int) -> None:
    """Raises ValueError for more pixels than Pillow takes without a warning."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ValueError(f"{width} x {height} pixels are more than the {limit} that are taken to be a picture")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not a picture of a known format ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
