"""What is given to the app: hostile pictures are refused in a sentence, and nothing is made of their names."""

import io
import struct
import zlib

import pytest
from PIL import Image

from ace_counterfactuals.core.app import pictures
from ace_counterfactuals.core.app.pictures import Uploads
from ace_counterfactuals.core.data.pictures import picture_size
from tests.support.app_cases import png

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GIANT = [(2**16, 2**16), (30000, 30000), (100000, 1000), (7100, 7100), (2**31 - 1, 1)]


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(2**16))) + chunk(b"IEND", b"")
    )


def encoded(kind: str, **how) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "orange").save(buffer, kind, **how)
    return buffer.getvalue()


WHOLE = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")}
HOSTILE = {
    **{f"bomb {width} x {height}": bomb(width, height) for width, height in GIANT},
    **{
        f"{kind} cut at {share}": data[: int(len(data) * share)] for kind, data in WHOLE.items() for share in (0.1, 0.5)
    },
    **{f"{kind} without its head": data[16:] for kind, data in WHOLE.items() if kind != "PPM"},
    **{f"{kind} without content": data[:12] for kind, data in WHOLE.items()},
    "svg": SVG,
    "svg with a declaration": b'<?xml version="1.0"?>' + SVG,
    "svg behind a mark": b"\xef\xbb\xbf" + SVG,
    "html": b"<!doctype html><script>alert(1)</script>",
    "empty": b"",
    "zeros": bytes(4096),
    "text": b"a picture, really\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "pdf": b"%PDF-1.7\n1 0 obj <<>> endobj\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "elf": b"\x7fELF" + bytes(100),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "numpy": b"\x93NUMPY\x01\x00" + bytes(100),
    "avif of nothing": b"\x00\x00\x00\x1cftypavif" + bytes(64),
    "heic of nothing": b"\x00\x00\x00\x1cftypheic" + bytes(64),
    "icon": b"\x00\x00\x01\x00\x01\x00" + bytes(64),
    "tiff that points at itself": b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(64),
    "gif of no size": b"GIF89a" + bytes(64),
}
NAMES = [
    "<script>alert(1)</script>.png",
    "a" * 300 + ".png",
    "../../etc/passwd",
    "picture.svg",
    "new\nline\x1b[31m.png",
    "",
]


def test_there_are_fifty_of_them():
    assert len(HOSTILE) >= 45 and len(HOSTILE) + len(NAMES) >= 50


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_picture_is_refused_in_a_sentence_and_leaves_nothing(what, tmp_path):
    with pytest.raises(ValueError, match=r"picture|pixels") as caught:
        Uploads(tmp_path).add(HOSTILE[what], "picture.png")
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_alone(name, tmp_path):
    upload = Uploads(tmp_path).add(png(), name)
    assert [path.parent for path in tmp_path.rglob("*")] == [tmp_path]
    assert upload.path.stem == upload.id and len(upload.name) <= 80 and upload.name.isprintable()


def test_a_picture_that_is_too_large_is_made_smaller_and_says_so(tmp_path):
    upload = Uploads(tmp_path).add(png(4000, 1000), "wide.png")
    assert picture_size(upload.path) == (2048, 512)
    assert upload.said == ("The picture had 4000 x 1000 pixels, made smaller to 2048 x 512.",)


def test_pixels_and_grounds_are_those_that_main_py_would_see_and_nothing_else_is_kept(tmp_path):
    buffer, layer = io.BytesIO(), Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    layer.save(buffer, "PNG", icc_profile=b"profile", dpi=(72, 72))
    with Image.open(Uploads(tmp_path, background="blue").add(buffer.getvalue(), "x").path) as kept:
        assert kept.getpixel((0, 0)) == (0, 0, 255) and kept.info == {}


def test_the_oldest_pictures_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "KEPT", 2)
    uploads = Uploads(tmp_path)
    first, *others = [uploads.add(png(), "x") for _ in range(3)]
    assert {path.stem for path in tmp_path.iterdir()} == {other.id for other in others}
    with pytest.raises(ValueError, match="give it again"):
        uploads.get(first.id)
