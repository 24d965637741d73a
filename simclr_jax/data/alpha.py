"""The transparency of encoded images, which is left out where one channel or three are read."""

from __future__ import annotations

import io
import struct

import numpy as np
from etils import epy
from PIL import Image

with epy.lazy_imports():
    import tensorflow as tf

_WITH_ALPHA = (4, 6)  # The colour types of PNG that have an alpha channel.


def not_opaque(data: bytes, kind: str | None) -> float | None:
    """The share of the pixels of an image that are not opaque, 0 to 1.

    Args:
      data: An encoded image that can be decoded.
      kind: Its format, from `images.format_of`.

    Returns:
      The share, or None for an image that has neither an alpha channel nor a transparent colour.

    >>> buffer = io.BytesIO()
    >>> Image.new("LA", (4, 4), (200, 0)).save(buffer, "PNG")
    >>> not_opaque(buffer.getvalue(), "PNG")
    1.0
    """
    if kind in (None, "JPEG", "NPY"):
        return None
    if kind == "PNG":  # Pillow refuses a PNG with a large colour profile or text.
        if not _png_has_transparency(data):
            return None
        alpha = tf.io.decode_png(data, channels=4).numpy()[..., 3]
    else:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            if not image.has_transparency_data:
                return None
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return float((alpha < 255).mean())


def _png_has_transparency(data: bytes) -> bool:
    """Whether a PNG has an alpha channel, or names transparent colours before its pixels."""
    if data[25] in _WITH_ALPHA:
        return True
    at = 8
    while len(data) >= at + 8:
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name in (b"tRNS", b"IDAT"):
            return bool(name == b"tRNS")
        at += 12 + length  # The length, the name and the checksum have four bytes each.
    return False
