"""What is decoded to check an image, and that nothing passes that cannot be decoded."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_jax.data import checks, images
from simclr_jax.data.readable import Readable
from support.sources import encoded, readable, split, write

KINDS = {
    "grey": encoded("white", mode="L"),
    "cmyk": encoded("white", mode="CMYK"),
    "alpha": encoded("white", "PNG", mode="RGBA"),
    "palette": encoded("white", "PNG", mode="P"),
    "red": encoded("red", size=(40, 20)),
}


@pytest.fixture
def few_pixels(monkeypatch):
    """JPEGs of more than 500 pixels count as large."""
    monkeypatch.setattr(checks, "COPIED_PIXELS", 500)
    checks._in_graph.cache_clear()
    yield
    checks._in_graph.cache_clear()


def noise(rng, size=(150, 120), **options):
    """A JPEG with much to decode."""
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_images_that_are_decoded_together_are_those_of_each_alone(monkeypatch):
    """Large ones are left out, and damaged ones."""
    data = [*KINDS.values()]
    for one, alone in zip(checks.decoded_together(data), data, strict=True):
        np.testing.assert_array_equal(one, images.pixels(alone))
    monkeypatch.setattr(checks, "TOGETHER_PIXELS", 500)
    checks._in_graph.cache_clear()
    assert [one is None for one in checks.decoded_together(data)] == [False] * 4 + [True]
    for harmed in (data[0][:-30], data[2][:20], data[2][:40]):
        found = checks.decoded_together([*data[:3], harmed, data[1]])
        assert [one is None for one in found] == [False] * 3 + [True, False]
    checks._in_graph.cache_clear()
    assert checks.decoded_together([]) == []


def test_a_png_that_ends_within_its_header_is_damaged_and_stops_nothing():
    """TensorFlow's message quotes its bytes, which are no text."""
    assert checks.decoded_together([b"\x89PNG\r\n\x1a\nno more"]) == [None]


def test_of_a_large_jpeg_the_size_is_found_and_no_pixels(few_pixels):
    for found in checks.checked_together([*KINDS.values()]), map(checks.checked, KINDS.values()):
        sizes = {kind: each[:2] for kind, each in zip(KINDS, found, strict=True)}
        assert sizes == {**dict.fromkeys(KINDS, (10, 12)), "red": (20, 40)}
    found = checks.checked_together([KINDS["red"], KINDS["alpha"]])
    assert [each.pixels is None for each in found] == [True, False]
    assert checks.checked(KINDS["red"]).pixels is None
    assert checks.checked_together([KINDS["red"]], channels=1)[0].pixels.shape == (20, 40, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_what_passes_a_check_can_be_decoded(few_pixels, rng, options):
    """And what can be decoded passes it, whatever has happened to the file."""
    whole = noise(rng, **options)
    harmed = [whole]
    for number in range(60):
        place, data = int(rng.integers(2, len(whole))), bytearray(whole)
        if number % 3 == 0:
            data = data[:place]
        elif number % 3 == 1:
            data[place : place + 20] = rng.integers(0, 256, 20, np.uint8).tobytes()
        else:
            del data[place : place + 20]
        harmed.append(bytes(data))

    def can_be_decoded(data):
        try:
            return tf.io.decode_image(data, channels=3, expand_animations=False).shape.rank == 3
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
            return False

    def passes(data):
        try:
            return checks.checked(data).pixels is None
        except ValueError:
            return False

    decoded = [can_be_decoded(data) for data in harmed]
    assert decoded[0]
    assert 10 < sum(decoded) < 60
    assert [found is not None for found in checks.checked_together(harmed)] == decoded
    assert [*map(passes, harmed)] == decoded


def test_the_pixels_of_large_jpegs_are_decoded_when_it_is_their_turn(few_pixels, rng, tmp_path):
    write(tmp_path / "0.jpg", KINDS["grey"])
    write(tmp_path / "1.jpg", noise(rng))
    write(tmp_path / "2.jpg", noise(rng)[:-2000])
    source = readable(tmp_path, eval_split="train")
    small, large, other = source.load([0, 1, 2])[0]
    assert (small.decoded, large.decoded, [*source.bad]) == (True, False, [2])
    assert (large.height, large.width, large.is_jpeg) == (120, 150, True)
    assert (other.height, other.decoded) == (small.height, False)
    assert source.load([1])[0][0] == large


def test_a_large_jpeg_in_colour_is_no_image_of_one_channel(few_pixels, rng, tmp_path):
    write(tmp_path / "0.jpg", encoded("grey", size=(40, 20)))
    write(tmp_path / "1.jpg", noise(rng))
    images_of = split("folder", tmp_path, eval_split="train")
    source = Readable(images_of, on_bad_image="replace", channels=1)
    source.load([0, 1])
    assert [*source.bad] == [1]


def of_one_size(count=3):
    """PNG images of one size and of every kind that TensorFlow decodes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 12, 9, 3), np.uint8)
    found = [images.as_png(Image.fromarray(own)) for own in pixels]
    image = Image.fromarray(pixels[0])
    found += [images.as_png(image.convert(mode)) for mode in ("L", "P", "1")]
    for mode in ("LA", "RGBA"):
        alpha = image.convert(mode)
        alpha.putalpha(Image.fromarray(pixels[1, ..., 0]))
        found.append(images.as_png(alpha))
    deep = 257 * pixels[2, ..., 0].astype(np.uint16)
    found.append(images.as_png(Image.fromarray(deep)))
    return found


def test_png_images_of_one_size_are_decoded_as_each_alone(monkeypatch):
    monkeypatch.setattr(checks, "_in_graph", None)  # They need not the graph for any image.
    data = of_one_size()
    found = checks.checked_together(data)
    for one, alone in zip(found, data, strict=True):
        assert (one.height, one.width) == (12, 9)
        np.testing.assert_array_equal(one.pixels, images.pixels(alone))


def test_a_damaged_png_among_those_of_one_size_is_found():
    data = of_one_size()
    for harmed in (data[1][:-30], data[1][:40] + bytes(9) + data[1][49:], data[1][:24]):
        found = checks.checked_together([data[0], harmed, *data[2:]])
        assert [one is None for one in found] == [False, True, *[False] * (len(data) - 2)]


def test_large_png_images_of_one_size_are_left_out(monkeypatch):
    monkeypatch.setattr(checks, "TOGETHER_PIXELS", 12 * 9 - 1)
    checks._in_graph.cache_clear()
    assert checks.decoded_together(of_one_size()) == [None] * 9
    checks._in_graph.cache_clear()
