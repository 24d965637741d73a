"""How transparent images are, in every format that can be; and that it leaves views as they are."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import images
from simclr_jax.data.alpha import not_opaque
from support.sources import encoded, npy, tiff

ALPHA = np.repeat(np.array([255, 128, 0, 255], np.uint8), 4).reshape(4, 4)
COLOURS = np.dstack([np.full((4, 4), 200, np.uint8), np.full((4, 4), 90, np.uint8), ALPHA // 2])
RGBA = Image.fromarray(np.dstack([COLOURS, ALPHA]))


def saved(image, kind, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def palette(kind, transparency):
    """Four rows of three colours, of which the first is transparent."""
    image = Image.fromarray(np.repeat(np.array([0, 1, 2, 0], np.uint8), 4).reshape(4, 4))
    image.putpalette([250, 10, 10, 10, 250, 10, 10, 10, 250])
    return saved(image, kind, transparency=transparency)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, "RGBA") for kind in ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")),
        *((kind, "LA") for kind in ("PNG", "TIFF", "JPEG2000")),
    ],
)
def test_an_alpha_channel_is_counted_in_every_format(kind, mode):
    image = RGBA.copy() if mode == "RGBA" else RGBA.convert("LA")
    assert not_opaque(saved(image, kind), kind) == 0.5
    image.putalpha(255)
    assert not_opaque(saved(image, kind), kind) in (0, None)  # WebP and AVIF may leave it out.


@pytest.mark.parametrize(
    ("data", "kind", "share"),
    [
        (palette("PNG", 0), "PNG", 0.5),
        (palette("PNG", bytes([255, 9, 255])), "PNG", 0.25),
        (palette("GIF", 0), "GIF", 0.5),
        (saved(Image.new("RGB", (4, 4), "red"), "PNG", transparency=(255, 0, 0)), "PNG", 1),
        (saved(Image.new("L", (4, 4), 9), "PNG", transparency=8), "PNG", 0),
    ],
)
def test_transparent_colours_are_counted(data, kind, share):
    assert not_opaque(data, kind) == share


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PPM"])
def test_an_image_without_transparency_has_none(kind):
    assert not_opaque(encoded("teal", kind), kind) is None
    assert not_opaque(npy(np.zeros((4, 4, 4), np.uint8)), "NPY") is None


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_the_colours_below_are_seen_as_they_are_in_the_file(kind):
    kwargs = {} if kind != "JPEG2000" else {"irreversible": False}
    pixels = images.pixels(saved(RGBA, kind, **kwargs))
    np.testing.assert_array_equal(pixels, COLOURS)
    four = images.pixels(saved(RGBA, kind, **kwargs), channels=4)
    np.testing.assert_array_equal(four[..., 3], ALPHA)


def test_a_tiff_whose_colours_are_multiplied_by_alpha_is_divided_by_it():
    scaled = np.round(COLOURS * (ALPHA[..., None] / 255)).astype(np.uint8)
    data = tiff(np.dstack([scaled, ALPHA]), photometric="rgb", extrasamples=["assocalpha"])
    assert not_opaque(data, "TIFF") == 0.5
    pixels = images.pixels(data)
    np.testing.assert_allclose(pixels[[0, 1, 3]], COLOURS[[0, 1, 3]], atol=2)
    assert not pixels[2].any()  # Black where nothing is left of the colour.
