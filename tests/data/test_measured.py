"""Measurements: numbers of any depth, which a range maps to [0, 1] and back."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.base.settings import FlagError, convert, flag_items
from ace_counterfactuals.core.data.imageset import open_dataset, with_channels
from ace_counterfactuals.core.data.measured import as_measured, measured, tensor_of
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode
from ace_counterfactuals.core.runs.config import MainConfig

GREY = np.random.default_rng(0).integers(0, 65536, (6, 8)).astype(np.uint16)
COLOURS = np.random.default_rng(1).integers(0, 65536, (6, 8, 3)).astype(np.uint16)


def deep_png(values):
    """A PNG with 16 bits a channel, which Pillow does not write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def write(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x.npy", GREY),
        ("x.npy", GREY.astype(np.float64)),
        ("x.npy", np.asfortranarray(GREY)),
        ("x.npy", COLOURS),
        ("x.npy", COLOURS.transpose(2, 0, 1)),
        ("x.png", GREY),
        ("x.tif", GREY),
        ("x.tif", GREY.astype(np.float32)),
        ("x.tif", GREY.astype(np.int32)),
    ],
)
def test_numbers_are_read_at_full_depth_and_given_back(tmp_path, name, values):
    span = (-500.0, 70000.0)
    image = tensor_of(measured(write(tmp_path / name, values), span))
    back = as_measured(image, span)
    wanted = values.transpose(1, 2, 0) if values.shape[0] == 3 else values
    assert np.abs(back - wanted.astype(float)).max() < 0.01


def test_pictures_of_8_bits_are_numbers_to_255(tmp_path):
    levels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(levels).save(tmp_path / "x.png")
    assert np.allclose(tensor_of(measured(tmp_path / "x.png", (0, 255)))[0], levels / 255)


def test_what_lies_beyond_the_range_is_clipped_and_this_is_said_once(tmp_path, notes):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.array([[-5.0, 0], [50, 500]]))
    images = open_dataset("Folder", tmp_path, image_size=8, image_range="0,100")
    assert [float(sample.image.max()) for sample in images] == [1, 1] and images[0].image.min() == 0
    assert [said for said in notes.messages if "clipped" in said] == [notes.messages[-1]]


@pytest.mark.parametrize(("values", "channels"), [(GREY, 1), (COLOURS, 3)])
def test_the_channels_of_measurements_are_found(tmp_path, values, channels):
    np.save(tmp_path / "x.npy", values)
    images = open_dataset("Folder", tmp_path, image_size=8, image_range="0,65535")
    assert with_channels(images, "auto")[0].image.shape == (channels, 8, 8)
    assert with_channels(images, 3)[0].image.shape == (3, 8, 8)


def test_measurements_are_resized_as_numbers(tmp_path):
    np.save(tmp_path / "x.npy", np.repeat(np.repeat(GREY[:4, :4], 2, 0), 2, 1))
    image = open_dataset("Folder", tmp_path, image_size=4, image_range="0,65535")[0].image
    assert image.dtype == torch.float32 and not torch.equal((image * 255).round() / 255, image)


def test_class_folders_of_measurements_are_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", GREY)
    assert [r.label for r in open_dataset("Folder", tmp_path, image_size=8, image_range="0,9").records] == [0, 1]


def test_without_a_range_measurements_are_named_with_the_remedy(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(FlagError, match="1 files of numbers are left out; image_range LOW,HIGH reads them: x.npy"):
        open_dataset("Folder", tmp_path, image_size=8)
    Image.new("RGB", (9, 9)).save(tmp_path / "y.png")
    assert "x.npy" in open_dataset("Folder", tmp_path, image_size=8).notices[-1]
    with pytest.raises(UnreadableImage, match="image_range LOW,HIGH"):
        decode(tmp_path / "x.npy")


def npy_of(header, content=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy_of({"descr": "<f8", "fortran_order": False, "shape": (10**6, 687195)}, bytes(64)), "wanted all of"),
        (npy_of({"descr": "|O", "fortran_order": False, "shape": (2, 2)}, bytes(64)), "wanted all of .* object"),
        (npy_of({"descr": "<f8", "fortran_order": False, "shape": (-2, -2)}, bytes(32)), "wanted all of"),
        (npy_of({"descr": "<f8", "fortran_order": False, "shape": (4,)}, bytes(32)), r"wanted numbers \(H, W\)"),
        (npy_of({"descr": "<f8", "fortran_order": False, "shape": (2, 2)}, b"\xff" * 32), "NaN or infinity"),
        (npy_of({"descr": "<f4", "fortran_order": False, "shape": (2, 2)}, b"\x01\x00\x80\x7f" * 4), "NaN or infinity"),
        (b"\x93NUMPY\x09\x00junk", r"\(9, 0\)"),
        (b"", "magic"),
    ],
    ids=["5 TiB", "pickles", "less than nothing", "a line", "NaN", "signals", "version 9", "empty"],
)
def test_a_strangers_npy_is_refused_with_the_reason(tmp_path, content, reason):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        measured(tmp_path / "x.npy", (0, 1))


def test_an_npy_of_more_pixels_than_a_picture_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(UnreadableImage, match="8 x 6 pixels are more than"):
        measured(write(tmp_path / "x.npy", GREY), (0, 1))


def test_colours_of_16_bits_that_would_lose_8_of_them_are_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(deep_png(COLOURS))
    with pytest.raises(UnreadableImage, match="16 bits of RGB, .*save it as .npy"):
        measured(tmp_path / "x.png", (0, 65535))


@pytest.mark.parametrize("text", ["5", "5,5", "9,1", "0,inf", "a,b", "1,2,3"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(FlagError, match="wanted LOW,HIGH"):
        convert("image_range", flag_items(MainConfig)["image_range"], text)
