"""What headers say, in every format that is read."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import headers, images


def encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "channels", "bits"),
    [
        ("JPEG", "RGB", "RGB", 8),
        ("JPEG", "L", "grey", 8),
        ("JPEG", "CMYK", "CMYK", 8),
        ("PNG", "RGB", "RGB", 8),
        ("PNG", "RGBA", "RGBA", 8),
        ("PNG", "LA", "grey and alpha", 8),
        ("PNG", "P", "palette", 8),
        ("PNG", "1", "grey", 1),
        ("PNG", "I;16", "grey", 16),
        ("GIF", "P", "palette", 8),
        ("BMP", "RGB", "RGB", 8),
        ("WEBP", "RGB", "RGB", 8),
        ("TIFF", "I;16", "grey", 16),
        ("TIFF", "F", "grey", 32),
        ("TIFF", "RGB", "RGB", 8),
        ("PPM", "L", "grey", 8),
        ("AVIF", "RGB", "RGB", 8),
        ("JPEG2000", "RGB", "RGB", 8),
    ],
)
def test_a_header_says_format_channels_and_bits(kind, mode, channels, bits):
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 7), 999, np.uint16))
    else:
        image = Image.new("RGB", (7, 6), "teal").convert(mode)
    assert headers.of(encoded(image, kind)) == (kind, channels, bits)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_header_that_cannot_be_read_is_unknown(kind):
    data = encoded(Image.new("RGB", (7, 6)), kind)[:14]
    assert images.format_of(data) == kind
    assert headers.of(data) == (kind, "unknown", 0)
