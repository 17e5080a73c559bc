"""Decoding: unusual pictures become the RGB that a viewer shows; broken ones are refused by name, whatever breaks."""

import io
import struct
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.data.imageset import ImageSet, open_dataset, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, resize_crop, to_tensor
from ace_counterfactuals.core.data.specs import PictureFile

GREY16 = np.array([[0, 255, 256, 32768], [40000, 65000, 65279, 65535]], dtype=np.uint16)


def gradient(mode="RGB"):
    ramp = np.linspace(0, 255, 30 * 20 * 3).astype(np.uint8).reshape(20, 30, 3)
    return Image.fromarray(ramp).convert(mode)


def pixels(path):
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def save(image, path, **options):
    image.save(path, **options)
    return path


def png_claiming(width, height):
    """A greyscale PNG whose header promises more than its data holds."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    path = save(Image.fromarray(GREY16), tmp_path / f"x.{suffix}")
    assert np.array_equal(pixels(path)[..., 0], np.round(GREY16 / 257))


def test_16_bit_grey_of_a_pgm_is_scaled_alike(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 4 2 65535\n" + GREY16.astype(">u2").tobytes())
    assert np.array_equal(pixels(tmp_path / "x.pgm")[..., 0], np.round(GREY16 / 257))


def test_32_bit_grey_within_16_bits_is_scaled_alike(tmp_path):
    path = save(Image.fromarray(GREY16.astype(np.int32)), tmp_path / "x.tif")
    assert np.array_equal(pixels(path)[..., 1], np.round(GREY16 / 257))


def test_grey_beyond_16_bits_is_refused(tmp_path):
    path = save(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match="run from 0 to 70000"):
        decode(path)


def test_floating_point_pixels_are_refused(tmp_path):
    path = save(Image.fromarray(np.array([[0.25, 1e9]], dtype=np.float32)), tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match="floating-point"):
        decode(path)


def test_cmyk_is_converted(tmp_path):
    red = save(Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK"), tmp_path / "x.jpg", quality=100)
    assert np.abs(pixels(red).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_are_what_pillow_converts_them_to(tmp_path, mode):
    image = gradient(mode)
    assert np.array_equal(pixels(save(image, tmp_path / "x.png")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA"])
def test_a_transparent_picture_is_laid_on_the_background(tmp_path, mode):
    cut = gradient("P" if mode == "P" else "RGBA")
    options = {"transparency": bytes(range(256))} if mode == "P" else {}
    if mode != "P":
        cut.putalpha(Image.linear_gradient("L").resize(cut.size))
        cut = cut.convert(mode)
    path = save(cut, tmp_path / "x.png", **options)
    with Image.open(path) as stored:
        layers = np.asarray(stored.convert("RGBA")).astype(float)
    seen, alpha = layers[..., :3], layers[..., 3:] / 255
    for name, colour in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        laid = np.asarray(decode(path, background=name))
        assert np.abs(laid - (alpha * seen + (1 - alpha) * np.array(colour))).max() <= 1


def test_a_colour_that_stands_for_transparency_is_laid_on_the_background_too(tmp_path):
    path = save(Image.new("RGB", (3, 3), (9, 9, 9)), tmp_path / "x.png", transparency=(9, 9, 9))
    assert (pixels(path) == 255).all()


def test_that_pictures_are_transparent_is_said_once(tmp_path, notes):
    for name in ("a", "b"):
        save(Image.new("RGBA", (9, 9)), tmp_path / f"{name}.png")
    save(gradient(), tmp_path / "c.png")
    images = open_dataset("Folder", tmp_path, image_size=8, background="red")
    assert images[1].image[0].min() == 1 and images[1].image[1].max() == 0 and len([*images]) == 3
    assert len(notes.messages) == 1 and "b.png" in notes.text and "background red" in notes.text


def test_avif_is_read_where_pillow_reads_it_and_else_named(tmp_path, monkeypatch):
    if ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow has no AVIF")
    path = save(gradient(), tmp_path / "x.avif", quality=100)
    assert np.abs(pixels(path).astype(int) - np.asarray(gradient())).mean() < 4
    monkeypatch.delitem(Image.EXTENSION, ".avif")
    with pytest.raises(UnreadableImage, match="is AVIF.*pip install"):
        decode(path)


def test_heic_is_among_the_pictures_and_skipped_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    images = open_dataset("Folder", tmp_path, image_size=8)
    with pytest.raises(UnreadableImage, match="is HEIC.*pip install pillow-heif"):
        images[0]


def test_files_that_look_like_pictures_and_are_not_read_are_named(tmp_path):
    for name in ("a/x.png", "a/y.svg", "b/z.DCM"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(gradient(), tmp_path / name, format="PNG")
    said = open_dataset("Folder", tmp_path, image_size=8).notices[-1]
    assert said.startswith("2 pictures of formats that are not read") and said.endswith("y.svg, z.DCM")


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by 90 degrees
    return save(gradient(), path, exif=exif)


def test_folders_are_turned_as_exif_says(tmp_path):
    rotated(tmp_path / "x.png")
    upright = np.asarray(gradient().rotate(-90, expand=True).resize((8, 12), Image.Resampling.BILINEAR))
    image = open_dataset("Folder", tmp_path, image_size=8)[0].image
    assert np.array_equal((image * 255).round().numpy(), upright[2:10].transpose(2, 0, 1))


def test_the_papers_sets_are_not_turned_since_the_original_did_not(tmp_path):
    assert decode(rotated(tmp_path / "x.png")).size == (30, 20)


def test_values_are_exactly_x_over_255():
    every = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    assert np.array_equal(to_tensor(every)[1].numpy().ravel(), np.arange(256, dtype=np.float32) / 255)


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of large pictures, is not what refuses them
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "not a picture of a known format"),
        (png_claiming(60_000, 60_000), "pixels"),
        (png_claiming(10_000, 10_000), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not a picture of a known format"),
    ],
    ids=["empty", "text", "bomb", "half a bomb", "PostScript"],
)
def test_what_is_no_picture_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(path)
    assert str(path) in str(caught.value)


def test_a_picture_that_has_gone_is_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_truncated_picture_is_refused_rather_than_half_grey(tmp_path, kind):
    buffer = io.BytesIO()
    gradient().save(buffer, kind)
    path = tmp_path / "x"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 3 // 4])
    with pytest.raises(UnreadableImage):
        decode(path)


def test_a_sliver_that_would_be_resized_to_gigabytes_is_refused(tmp_path):
    path = save(Image.new("RGB", (60_000, 1)), tmp_path / "x.png")
    images = ImageSet(name="Toy", records=[PictureFile(7, path, 0)], transform=partial(resize_crop, size=256))
    with pytest.raises(UnreadableImage, match="256 x 15360000 pixels"):
        images[0]


def test_prefetching_gives_the_error_in_the_place_of_the_picture(tmp_path):
    gradient().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"junk")
    gradient().save(tmp_path / "c.png")
    images = open_dataset("Folder", tmp_path, image_size=8)
    first, broken, last = prefetch(images, range(3), workers=2)
    assert (first.index, broken.index, last.index) == (0, 1, 2)
    assert isinstance(broken, UnreadableImage)
