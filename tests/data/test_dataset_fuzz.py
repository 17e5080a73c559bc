"""Seeded mutations of small pictures: each either decodes or is an UnreadableImage, in no time."""

import io
import random
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.data.imageset import ImageSet
from ace_counterfactuals.core.data.pictures import UnreadableImage, resize_crop
from ace_counterfactuals.core.data.specs import PictureFile

SECONDS_A_PICTURE = 5


def originals():
    """The bytes of a small picture in every format and mode that is read often."""
    ramp = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((24, 18))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    kinds = [
        ("PNG", "RGB", {"exif": exif}),
        ("PNG", "P", {"transparency": bytes(range(256))}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("WEBP", "RGB", {"exif": exif}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("PPM", "RGB", {}),
    ]
    for kind, mode, options in kinds:
        buffer = io.BytesIO()
        grey = mode == "I;16"
        image = Image.fromarray(np.asarray(ramp.convert("L")).astype(np.uint16) * 257) if grey else ramp.convert(mode)
        image.save(buffer, kind, **options)
        yield buffer.getvalue()


def mutated(content, chance):
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(content)) if chance.random() < 0.5 else chance.randrange(min(64, len(content)))
        match chance.randrange(4):
            case 0:
                content[place] ^= 1 << chance.randrange(8)
            case 1:
                content[place : place + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
            case 2:
                source = chance.randrange(len(content))
                content[place:place] = content[source : source + chance.randrange(1, 40)]
            case 3 if place:
                del content[place:]
    return bytes(content)


@pytest.mark.filterwarnings("ignore")  # as in a run of the program, where Pillow's warnings are no errors
@pytest.mark.parametrize("runs", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_mutated_picture_decodes_or_is_refused(tmp_path, runs):
    sources, path, decoded = list(originals()), tmp_path / "x", 0
    images = ImageSet(
        name="Fuzz", records=[PictureFile(0, path, 0)], transform=partial(resize_crop, size=8), upright=True
    )
    for run in range(runs):
        path.write_bytes(mutated(sources[run % len(sources)], random.Random(run)))
        start = time.perf_counter()
        try:
            assert images[0].image.shape == (3, 8, 8)
            decoded += 1
        except UnreadableImage as error:
            assert error.reason and "\n" not in str(error), run
        assert time.perf_counter() - start < SECONDS_A_PICTURE, f"run {run} hangs"
    assert 0 < decoded < runs
