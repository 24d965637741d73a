"""Which encoded images can be read, and what is made of them for TensorFlow."""

import io
import re

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from simclr_jax.errors import one_line

MAX_PIXELS = 2**27  # 134 megapixels: more is a decompression bomb, not a photograph


def decodable(data: bytes | None) -> bytes:
    """Decodes `data` once; returns it as `transcode` does. Raises ValueError with the reason."""
    if not data:
        raise ValueError("missing" if data is None else "empty file")
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except Exception as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise ValueError(reason) from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    try:
        data = transcode(data)
        tf.io.decode_image(data, channels=3, expand_animations=False)
    except Exception as error:
        raise ValueError(_reason(error)) from error
    return data


def transcode(data: bytes) -> bytes:
    """JPEG and PNG as they are; anything else that Pillow reads (its first frame) as PNG."""
    if data.startswith((b"\xff\xd8", b"\x89PNG")):
        return data
    with Image.open(io.BytesIO(data)) as image:
        return as_png(image.convert("RGB"))


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """The message without what TensorFlow says of its operations."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", one_line(error, 300)).strip()[:200]
