"""What is said once of images that can be read; `images_test` has the lines about formats."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import survey
from simclr_jax.data.oddities import Oddities
from support.sources import encoded, npy, split, tiff, write

RAMP = np.arange(400, dtype=np.uint16).reshape(10, 40) * 10  # From 0 to 3,990.


def half_clear():
    """A PNG of which the left half is transparent."""
    image = Image.new("RGBA", (8, 8), (200, 90, 10, 255))
    image.paste((200, 90, 10, 0), (0, 0, 4, 8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_values_outside_the_range_are_said_once_and_counted(tmp_path):
    lines = Oddities((0, 1000), channels=1)
    assert list(lines.of(npy(RAMP // 4))) == []
    (line,) = lines.of(npy(RAMP))
    assert "74.75% of its values outside value_range=(0, 1000)" in line
    assert list(lines.of(npy(RAMP))) == []
    for number in range(5):
        write(tmp_path / f"{number}.npy", npy(RAMP // (4 if number % 2 else 1)))
    found = survey.scan(
        split("folder", tmp_path, held_out=0.2), 9, value_range=(0, 1000), channels=1
    )
    assert sorted({round(one.clipped, 4) for one in found.seen}) == [0.0, 0.7475]


def test_values_that_are_not_numbers_are_counted_as_outside_the_range(tmp_path):
    holed = (RAMP / 10).astype(np.float32)
    holed[0, :4] = np.nan
    (line,) = Oddities((0, 1000), channels=1).of(npy(holed))
    assert "has 1.00% of its values outside value_range=(0, 1000)" in line
    assert "NaN black" in line
    for number in range(5):
        write(tmp_path / f"{number}.npy", npy(holed))
    source = split("folder", tmp_path, held_out=0.2)
    found = survey.scan(source, 9, value_range=(0, 1000), channels=1)
    assert {round(one.clipped, 4) for one in found.seen} == {0.01}
    refused = survey.scan(source, 9, channels=1)
    assert all("1.00% are NaN" in reason for reason in refused.broken.values())
    assert refused.broken


def test_channels_that_lack_levels_in_a_common_range_are_named(rng):
    def lines(*scales):
        odd = Oddities((0, 1000), channels=len(scales))
        drawn = (rng.random((8, 9, 9, len(scales))) * scales for _ in range(2))
        return [line for arrays in drawn for array in arrays for line in odd.of(npy(array))]

    assert lines(1000, 300, 30) == []
    (line,) = lines(5, 1000, 1)
    assert line.startswith("is the last of 8 images")
    assert "the channels 0, 2 of 0 to 2:" in line


def test_a_range_of_more_than_8_bits_says_nothing_of_8():
    lines = Oddities((0, 10), channels=2)
    small = np.full((9, 9, 2), 200, np.uint8)
    assert list(lines.of(tiff(small, photometric="minisblack", planarconfig="contig"))) == []
    assert list(lines.of(npy(small)))


@pytest.mark.parametrize("channels", [1, 3])
def test_12_bits_are_suggested_where_no_value_has_more(channels):
    lines = Oddities(None, channels)
    said = [list(lines.of(npy(RAMP))) for _ in range(6)]
    assert [len(found) for found in said] == [1, 0, 0, 1, 0, 0]
    assert "uint16: 0 is taken for black and 65535 for white" in said[0][0]
    assert "value_range=(0,4095) of 12 bits" in said[3][0]


def test_channels_that_come_first_are_said_once():
    lines = Oddities(None, channels=5)
    assert list(lines.of(npy(np.zeros((8, 9, 5), np.uint8)))) == []
    (line,) = lines.of(npy(np.zeros((5, 8, 9), np.uint8)))
    assert "array of shape (5, 8, 9): its channels are taken to come first" in line
    assert list(lines.of(npy(np.zeros((5, 8, 9), np.uint8)))) == []


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("write_file", [npy, tiff])
def test_what_is_white_is_said_of_signed_values_of_8_bits(write_file, channels):
    shape, options = (8, 9, channels) if channels > 1 else (8, 9), {}
    if write_file is tiff:
        options = {"photometric": "minisblack", "planarconfig": "contig" if channels > 1 else None}
    assert not list(Oddities(None, channels).of(write_file(np.ones(shape, np.uint8), **options)))
    (line,) = Oddities(None, channels).of(write_file(np.ones(shape, np.int8), **options))
    assert "has values of int8: 0 is taken for black and 255 for white" in line


def test_transparency_is_said_of_the_first_image_that_has_any():
    lines = Oddities(None)
    opaque, clear = encoded("teal", "PNG", "RGBA"), half_clear()
    assert list(lines.of(opaque)) == []
    (line,) = lines.of(clear)
    assert "transparent in 50.00% of its pixels" in line
    assert list(lines.of(clear)) == []
    for channels in (2, 4):  # There alpha is a channel, or the image cannot be read.
        assert list(Oddities(None, channels).of(clear)) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [2, 5])
def test_channels_of_a_tiff_that_are_not_used_are_said_once(channels, count):
    lines = Oddities(None, channels)
    pixels = np.full((9, 9, count), 7, np.uint8)
    kind = "minisblack" if count == 2 else "rgb"
    data = tiff(pixels, photometric=kind, planarconfig="contig")
    (line,) = lines.of(data)
    used = "the first one is" if count == 2 else "the first 3 are"
    assert f"has {count} channels, of which {used} used; channels={count} uses all" in line
    assert list(lines.of(data)) == []
    assert list(Oddities(None, count).of(data)) == []
    assert list(Oddities(None, channels).of(tiff(pixels[..., 0], photometric="minisblack"))) == []
