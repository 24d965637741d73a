"""Checks of encoded images, and their conversion to the formats that TensorFlow decodes."""

import io
import re

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from simclr_jax.errors import one_line

# The largest number of pixels of an image (134 megapixels). A small file with more of them is a
# decompression bomb, which could exhaust the host's memory.
MAX_PIXELS = 2**27


def decodable(data: bytes | None) -> bytes:
    """Checks that TensorFlow can decode an image, by decoding it once.

    Args:
      data: The encoded image, or None for a file that could not be read.

    Returns:
      The image as JPEG or PNG, from `transcode`.

    Raises:
      ValueError: The image cannot be decoded. The message is the reason.

    >>> decodable(b"")
    Traceback (most recent call last):
    ValueError: empty file
    """
    if not data:
        raise ValueError("missing" if data is None else "empty file")
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except MemoryError:  # It is the host's fault, not the image's.
        raise
    except Exception as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise ValueError(reason) from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    try:
        data = transcode(data)
        tf.io.decode_image(data, channels=3, expand_animations=False)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        raise ValueError(_reason(error)) from error
    return data


def transcode(data: bytes) -> bytes:
    """Converts an image to PNG, unless it is JPEG or PNG already.

    Args:
      data: The encoded image, in any format that Pillow reads. Of several frames, the first one is
        used.

    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (2, 2)).save(buffer, "GIF")
    >>> transcode(buffer.getvalue())[:4]
    b'\\x89PNG'
    """
    if data.startswith((b"\xff\xd8", b"\x89PNG")):
        return data
    with Image.open(io.BytesIO(data)) as image:
        return as_png(image.convert("RGB"))


def as_png(image: Image.Image) -> bytes:
    """Encodes an image as PNG, with the fastest compression."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """The message of an error, without TensorFlow's names of operations."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", one_line(error, 300)).strip()[:200]
