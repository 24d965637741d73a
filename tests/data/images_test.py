"""Which images can be decoded, and what becomes of them."""

import io
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_jax.data import images
from simclr_jax.data.oddities import Oddities
from support.sources import encoded, pixel, readable, write

FORMATS = {
    "grey.jpg": encoded("white", mode="L"),
    "cmyk.jpg": encoded("white", mode="CMYK"),
    "rgba.png": encoded("white", "PNG", mode="RGBA"),
    "palette.png": encoded("white", "PNG", mode="P"),
    "bilevel.png": encoded("white", "PNG", mode="1"),
    "plain.bmp": encoded("white", "BMP"),
    "palette.bmp": encoded("white", "BMP", mode="P"),
    "still.gif": encoded("white", "GIF"),
    "moving.gif": encoded(
        "white", "GIF", save_all=True, append_images=[Image.new("RGB", (12, 10), "black")]
    ),
    "plain.webp": encoded("white", "WEBP"),
    "plain.tif": encoded("white", "TIFF"),
    "cmyk.tiff": encoded("white", "TIFF", mode="CMYK"),
    "plain.jp2": encoded("white", "JPEG2000"),
    "plain.avif": encoded("white", "AVIF"),
    "plain.ppm": encoded("white", "PPM"),
    "jpeg.jfif": encoded("white"),
    "without an ending": encoded("white"),
    "profile of 2 MB.png": encoded("white", "PNG", icc_profile=bytes(2_000_000)),
    "one pixel é.jpg": encoded("white", size=(1, 1)),
}


def test_every_format_becomes_rgb(tmp_path):
    for name, data in FORMATS.items():
        write(tmp_path / name, data)
    deep = np.full((10, 12), 65535, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    Image.fromarray(np.ones((10, 12), np.float32)).save(tmp_path / "floats.tif")
    source = readable(tmp_path, eval_split="train")
    found, _ = source.load(np.arange(len(source)))
    assert len(found) == len(FORMATS) + 3
    assert not source.bad
    for index, data in enumerate(found):
        np.testing.assert_allclose(pixel(data), 255, atol=1, err_msg=source.in_words(index))


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty file"), (b"text", "not an image")])
def test_what_is_no_image_is_told_apart(data, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        images.pixels(data)


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="12x10 pixels are more than 100"):
        images.pixels(encoded("red"))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PCX"])
def test_no_decoder_but_those_of_the_named_formats_sees_a_file(kind, monkeypatch):
    """Pillow hands PostScript to Ghostscript, which runs it."""
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ValueError, match=r"^not an image$"):
        images.pixels(encoded("red", kind))


def test_a_damaged_file_is_opened_by_its_own_decoder_only(monkeypatch):
    formats = []
    real = Image.open
    monkeypatch.setattr(
        Image, "open", lambda *a, **k: formats.append(k["formats"]) or real(*a, **k)
    )
    with pytest.raises(ValueError, match="truncated"):
        images.pixels(encoded("red", "BMP")[:100])
    assert set(formats) == {("BMP",)}


def deep_image(kind, scale, dtype=np.uint16):
    file = io.BytesIO()
    values = np.linspace(0, scale, 120).reshape(10, 12).astype(dtype)
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_the_values_of_deep_images_are_scaled_by_their_range(kind):
    data = deep_image(kind, 4095)
    expected = np.linspace(0, 4095, 120) / 4095 * 255
    found = Image.open(io.BytesIO(images.transcode(data, (0, 4095))))
    np.testing.assert_allclose(np.asarray(found).ravel(), expected, atol=1)
    upper = tf.io.decode_image(images.transcode(data), channels=1).numpy()
    assert upper.max() == 4095 // 256  # Without a range, white is 65,535.


@pytest.mark.parametrize("white", [4095, 65535])
def test_a_range_is_of_the_values_in_a_file_that_names_its_white(white):
    data = b"P5\n2 1\n%d\n" % white + np.array([0, 2048], ">u2").tobytes()
    found = Image.open(io.BytesIO(images.transcode(data, (0, 4095))))
    assert np.asarray(found)[0, :2].tolist() == [0, 128]


def jpeg_2000(image, bits):
    """A JPEG 2000 whose header names another number of bits per value than it was written with."""
    file = io.BytesIO()
    image.save(file, "JPEG2000", no_jp2=True)
    data = bytearray(file.getvalue())
    for channel in range(len(image.getbands())):
        data[42 + 3 * channel] = bits - 1
    return bytes(data)


def test_a_range_is_of_the_values_in_a_jpeg_2000_of_12_bits():
    shift = 2**15 - 2**11  # A value is stored less half of white.
    values = np.full((8, 8), 2048 + shift, np.uint16)
    data = jpeg_2000(Image.fromarray(values), 12)
    assert pixel(images.transcode(data, (0, 4095))) == pytest.approx([128] * 3)


@pytest.mark.parametrize("value_range", [None, (0, 65535), (0, 4095)])
def test_a_tiff_of_16_bits_whose_0_is_white_is_inverted(value_range):
    white = 4095 if value_range == (0, 4095) else 65535
    file = io.BytesIO()
    Image.fromarray(np.array([[0, white // 4, white]], np.uint16)).save(file, "TIFF")
    tag = struct.pack("<HHI", 262, 3, 1)  # The photometric interpretation: 1, black is 0.
    data = file.getvalue().replace(tag + b"\1", tag + b"\0")
    assert data != file.getvalue()
    found = Image.open(io.BytesIO(images.transcode(data, value_range)))
    np.testing.assert_allclose(np.asarray(found)[0], [255, 191, 0], atol=1)
    assert not [line for _ in range(4) for line in Oddities(None).of(data)]


def test_floating_point_values_need_a_range_beyond_one():
    data = deep_image("TIFF", 300, np.float32)
    with pytest.raises(ValueError, match=r"float32 values from 0 to 300.*value_range"):
        images.pixels(data)
    assert np.asarray(Image.open(io.BytesIO(images.transcode(data, (0, 300))))).max() == 255


def test_nearly_black_images_and_further_frames_are_worth_a_line():
    said = Oddities(None)
    lines = [list(said.of(deep_image("PNG", 4095))) for _ in range(6)]
    assert [len(found) for found in lines] == [0, 0, 0, 1, 0, 0]
    assert "16-bit images whose values are at most 4095: nearly black" in lines[3][0]
    assert not list(Oddities((0, 4095)).of(deep_image("PNG", 4095)))
    bright = Oddities(None)
    assert not any(list(bright.of(deep_image("PNG", top))) for top in (65535, 9, 9, 9, 9))
    (line,) = said.of(FORMATS["moving.gif"])
    assert "first one is used" in line
    assert not list(said.of(FORMATS["moving.gif"]))


def test_threads_hold_no_more_than_the_budget():
    budget, held, most = images.Budget(10), [], []

    def work(size):
        with budget.hold(size):
            held.append(size)
            most.append(sum(held))
            time.sleep(0.001)
            held.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [4, 5, 3, 10, 2] * 8))
        list(pool.map(work, [100, 1] * 4))  # One that is too large waits for all others.
    assert max(total for total in most if total < 100) <= 10
    assert not {101} & set(most)


def colour_tiff(values):
    """A TIFF of values (H, W, 3) uint16, which Pillow reads but does not write."""
    (height, width, _), at = values.shape, 8 + 2 + 9 * 12 + 4
    entries = [
        *((256, 4, width), (257, 4, height), (258, 3, at), (259, 4, 1), (262, 4, 2)),
        *((273, 4, at + 6), (277, 4, 3), (278, 4, height), (279, 4, 2 * values.size)),
    ]
    fields = (struct.pack("<HHII", *entry[:2], 3 if entry[1] == 3 else 1, entry[2])
              for entry in entries)  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(fields) + bytes(4)
    return head + struct.pack("<3H", 16, 16, 16) + values.astype("<u2").tobytes()


_DEEP_COLOURS = {
    "a TIFF": (colour_tiff(np.full((4, 4, 3), 4000)), 15),
    "a PPM": (b"P6 4 4 65535\n" + np.full(48, 4000, ">u2").tobytes(), 16),
    "a plain PPM": (b"P3 1 1 65535\n4000 4000 4000\n", 16),
    "a JPEG 2000": (jpeg_2000(Image.new("RGB", (8, 8)), 16), None),
}


@pytest.mark.parametrize(("data", "seen"), _DEEP_COLOURS.values(), ids=_DEEP_COLOURS)
def test_colour_images_that_lose_bits_are_worth_a_line_and_take_no_range(data, seen):
    lines = Oddities(None)
    assert "of 16 bits, of which Pillow reads the upper 8: nearly black" in next(lines.of(data))
    assert list(lines.of(data)) == []
    assert seen is None or pixel(images.transcode(data)) == pytest.approx([seen] * 3)
    if images.format_of(data) != "TIFF":  # tifffile reads a TIFF whole.
        with pytest.raises(ValueError, match="value_range can be applied to it as a PNG"):
            images.pixels(data, (0, 4095))


def test_colour_images_of_8_bits_take_a_range():
    for kind in ("TIFF", "PPM", "JPEG2000"):
        data = encoded("white", kind)
        assert not list(Oddities(None).of(data))
        assert images.transcode(data, (0, 4095)) == images.transcode(data)
