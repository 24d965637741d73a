"""Images of more than 8 bits: their values, and how these become 8 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from etils import epy
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

with epy.lazy_imports():
    import tensorflow as tf

_SIZES = b"\xff\x4f\xff\x51"  # What the header of the samples in a JPEG 2000 begins with.

ValueRange = tuple[float, float]  # The values that are black and white.


def values(data: bytes, kind: str | None) -> np.ndarray | None:
    """The values of an image of more than 8 bits: (H, W) or (H, W, 3) of integers or floats.

    Args:
      data: The encoded image.
      kind: Its format, from `images.format_of`.

    Returns:
      The values without an alpha channel, or None for an image of 8 bits.
    """
    if kind == "PNG":
        if not is_deep_png(data):
            return None
        found = tf.io.decode_png(data, dtype=tf.uint16).numpy()
        return found[..., 0] if found.shape[-1] < 3 else found[..., :3]
    if kind is None or kind == "JPEG":
        return None
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        return np.asarray(image) if image.mode == "F" or image.mode.startswith("I") else None


def percent(share: float) -> str:
    """A share above 0, in percent.

    >>> percent(0.25), percent(1e-6)
    ('25.00%', 'less than 0.01%')
    """
    return f"{share:.2%}" if share >= 1e-4 else "less than 0.01%"


def to_bytes(values: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """Scales values to 0 … 255.

    Args:
      values: An array of integers or floating-point numbers.
      value_range: The values that become 0 and 255; see `images.transcode` for None.

    Returns:
      An array of the same shape, uint8.

    Raises:
      ValueError: There are values outside the range that None stands for.

    >>> to_bytes(np.array([0, 2048, 4095, 9999], np.uint16), (0, 4095)).tolist()
    [0, 128, 255, 255]
    """
    if value_range is None:
        low, high, most = np.min(values), np.max(values), white_of(values.dtype)
        if np.isnan(low):
            share = percent(float(np.isnan(values).mean()))
            raise ValueError(
                f"{values.dtype} values of which {share} are NaN; value_range can say which are "
                "black and white, and makes NaN black"
            )
        if not 0 <= low <= high <= most:
            raise ValueError(
                f"{values.dtype} values from {low:g} to {high:g}, not from 0 to {most}; "
                "value_range can say which are black and white"
            )
        if most > 1:  # Of 16 bits the upper 8 are used, as TensorFlow does with a PNG of them.
            return (values >> 8 if most > 255 else values).astype(np.uint8)
        value_range = (0, most)
    black, white = value_range
    scaled = (values.astype(np.float32) - black) / (white - black)
    return np.round(np.nan_to_num(np.clip(scaled, 0, 1)) * 255).astype(np.uint8)


def white_of(dtype: np.dtype[Any]) -> int:
    """The value of a type of integers or floating-point numbers that is white if no range says so.

    >>> [white_of(np.dtype(name)) for name in ("uint8", "int8", "uint16", "int32", "float32")]
    [255, 255, 65535, 65535, 1]
    """
    if dtype.kind == "f":
        return 1
    return 255 if dtype.itemsize == 1 else 65535


def is_deep_png(data: bytes) -> bool:
    """Whether a PNG has 16 bits per value, from its header."""
    return data[24:25] == b"\x10"


def unit(image: ImageFile, data: bytes) -> float:
    """A file's own value for each 1 that Pillow reads of an open grey image of more than 8 bits.

    Pillow scales the values of a PPM or a JPEG 2000 so that its white becomes 65,535.
    """
    how = image.tile[0][3] if image.format == "PPM" else None
    if isinstance(how, tuple) and how[0] == "L":  # The header names white.
        return int(how[1]) / 65535
    return 2.0 ** (bits_of(image, data) - 16) if image.format == "JPEG2000" else 1


def white_is_0(image: ImageFile) -> bool:
    """Whether an open image is a TIFF whose value 0 is white, which Pillow inverts at 8 bits."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0


def narrowed(image: ImageFile, data: bytes) -> str:
    """What an open image is if it has more bits than Pillow reads of it; '' if it has not."""
    bits = bits_of(image, data)
    if bits <= 8 or image.mode == "F" or image.mode.startswith("I"):
        return ""
    return f"a colour {image.format} of {bits} bits, of which Pillow reads the upper 8"


def bits_of(image: ImageFile, data: bytes) -> int:
    """The largest number of bits per value in an open TIFF, PPM or JPEG 2000; 8 in others."""
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(258, (8,)))
    if image.format == "PPM" and isinstance(how := image.tile[0][3], tuple) and how[0] == "RGB":
        return int(how[1]).bit_length()
    at = data.find(_SIZES) + 40  # The number of channels, and three bytes for each.
    if image.format == "JPEG2000" and len(data) >= at + 2:
        channels = int.from_bytes(data[at : at + 2], "big")
        sizes = data[at + 2 : at + 2 + 3 * channels : 3]
        return max((bits & 0x7F) + 1 for bits in sizes)
    return 8
