"""The pictures that were uploaded: decoded under a guard, kept as PNG in a temporary folder, the oldest dropped."""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import plain
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, opened

LARGEST_FILE = 20 * 2**20  # bytes
LARGEST_PICTURE = 50_000_000  # pixels: what is decoded takes some four bytes each
LONGEST_SIDE = 2048  # larger ones are made smaller
KEPT = 100


@dataclass(frozen=True)
class Upload:
    """A picture.  name: as it was called, of which nothing is made but text; said: what was done to it."""

    id: str
    path: Path
    name: str
    said: tuple[str, ...] = ()


@dataclass
class Uploads:
    """In ``folder``, which is emptied by who made it.  upright: pictures are turned as their EXIF orientation says."""

    folder: Path
    upright: bool = False
    background: str = "white"
    known: OrderedDict[str, Upload] = field(default_factory=OrderedDict)
    one: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes, name: str) -> Upload:
        """Keep a picture.  Raises ValueError saying why it cannot be."""
        with self.one:  # so that memory holds one that is decoded
            picture, said = decoded(data, upright=self.upright, background=self.background)
            key = secrets.token_urlsafe(12)
            upload = Upload(key, self.folder / f"{key}.png", plain(name)[:80] or "picture", said)
            atomic.write_png(upload.path, picture)
            self.known[key] = upload
            while len(self.known) > KEPT:
                guard.remove([self.known.popitem(last=False)[1].path])
        return upload

    def get(self, key: str) -> Upload:
        """Raises ValueError for one that is not there any more."""
        if key not in self.known:
            raise ValueError("this picture is not there any more; give it again")
        return self.known[key]


def decoded(data: bytes, *, upright: bool, background: str) -> tuple[Image.Image, tuple[str, ...]]:
    """In RGB, with what was done to it.  Raises ValueError with a reason alone: there is no file to be named."""
    if len(data) > LARGEST_FILE:
        raise ValueError(f"the file has more than {LARGEST_FILE // 2**20} MiB; save it smaller")
    nowhere, given = Path("upload"), lambda _: data
    try:
        with opened(nowhere, given) as image:
            pixels = image.width * image.height
        if pixels > LARGEST_PICTURE:
            raise ValueError(f"{pixels:,} pixels are more than the {LARGEST_PICTURE:,} that are taken; make it smaller")
        picture = decode(nowhere, upright=upright, background=background, content=given)
    except UnreadableImage as error:
        raise ValueError(f"this is no picture that can be read: {error.reason}") from None
    picture.info.clear()  # of profiles and texts nothing is kept
    before = picture.size
    if max(before) <= LONGEST_SIDE:
        return picture, ()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    sizes = "{} x {} pixels, made smaller to {} x {}".format(*before, *picture.size)
    return picture, (f"The picture had {sizes}.",)
