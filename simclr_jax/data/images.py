"""The formats of encoded images, checks of them, and their conversion to what TensorFlow decodes.

An image's format is that of its content, whatever its name. No decoder but those of `FORMATS` sees
a file, so none that runs programs does, such as Pillow's for PostScript.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epy
from PIL import Image, UnidentifiedImageError

from simclr_jax.data import arrays, depth
from simclr_jax.errors import one_line

with epy.lazy_imports():
    import tensorflow as tf

# The formats that are read, as Pillow names them but for NumPy's, and what their files begin with.
FORMATS = {
    name: re.compile(begin, re.DOTALL)
    for name, begin in {
        "JPEG": rb"\xff\xd8",
        "PNG": rb"\x89PNG",
        "GIF": rb"GIF8[79]a",
        "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
        "WEBP": rb"RIFF.{4}WEBP",
        "TIFF": rb"II[*+]\0|MM\0[*+]",
        "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        "AVIF": rb".{4}ftyp(?:.{4})*?avi[fs]",
        "PPM": rb"P[1-6f]\s+[#\d]",
        "NPY": rb"\x93NUMPY",
    }.items()
}
# The numbers of channels of images that TensorFlow decodes, as PNG or JPEG. Of others there are the
# pixels alone.
ENCODED = (1, 3)
HEAD_BYTES = 64  # The number of bytes at the beginning of a file that show its format.

# The largest number of pixels of an image (134 megapixels). A small file with more of them is a
# decompression bomb, which could exhaust the host's memory.
MAX_PIXELS = 2**27


class Loaded(NamedTuple):
    """An image that can be decoded.

    Attributes:
      data: The image as JPEG or PNG, or its pixels, a byte a channel, row by row.
      height: The number of rows of pixels.
      width: The number of columns of pixels.
      decoded: Whether `data` has the pixels.
      channels: The number of channels C.
    """

    data: bytes
    height: int
    width: int
    decoded: bool
    channels: int = 3

    @property
    def is_jpeg(self) -> bool:
        """Whether `data` is a JPEG, of which a part can be decoded."""
        return not self.decoded and format_of(self.data) == "JPEG"

    def pixels(self) -> np.ndarray:
        """The pixels (H, W, C), uint8."""
        if self.decoded:
            flat = np.frombuffer(self.data, np.uint8)
            return flat.reshape(self.height, self.width, self.channels)
        return pixels(self.data, channels=self.channels)


class Budget:
    """A bound on the bytes that threads hold at a time. One that needs more than all waits alone.

    Args:
      total: The number of bytes.
    """

    def __init__(self, total: int):
        self._total = self._free = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """A context that begins when `size` bytes are free, and holds them."""
        size = min(size, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


memory = Budget(2**27)  # The bound on decoded images in all threads that check or convert some.


def format_of(data: bytes) -> str | None:
    """The format of an encoded image, or None for anything else.

    Args:
      data: The file's content, of which the first `HEAD_BYTES` bytes are enough.

    >>> format_of(b"GIF89a..."), format_of(b"%!PS-Adobe-3.0 EPSF-3.0")
    ('GIF', None)
    """
    head = data[:HEAD_BYTES]
    return next((name for name, begin in FORMATS.items() if begin.match(head)), None)


def pixels(
    data: bytes, value_range: depth.ValueRange | None = None, channels: int = 3
) -> np.ndarray:
    """The pixels (H, W, C) uint8 of an image, which is so checked to be one.

    Args:
      data: The file's content.
      value_range: The values that are black and white in an image of more than 8 bits; see
        `transcode`.
      channels: The number of channels C.

    Raises:
      ValueError: The image cannot be decoded. The message is the reason.

    >>> pixels(b"")
    Traceback (most recent call last):
    ValueError: empty file
    """
    with _decoding(data, channels) as count:
        if channels not in ENCODED:
            with memory.hold(5 * channels * count):
                kind = format_of(data)
                return arrays.levels(data, kind, channels=channels, value_range=value_range)
        if not is_plain(data, value_range):
            with memory.hold(9 * count):
                image = _converted(data, value_range, channels)
                return arrays.arranged(np.asarray(image), channels)
        with memory.hold(3 * count):
            rgb = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
            return arrays.arranged(rgb, channels)


@contextlib.contextmanager
def _decoding(data: bytes, channels: int) -> Iterator[int]:
    """A context in which an image is decoded, whose errors name the reason; its pixels' number."""
    if not data:
        raise ValueError("empty file")
    width, height = size(data, channels)
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    try:
        yield width * height
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        raise ValueError(reason_of(error)) from error


def size(data: bytes, channels: int = 3) -> tuple[int, int]:
    """The width and the height of an encoded image in pixels, from its header.

    Args:
      data: The file's content.
      channels: The number of channels, by which the axes of an array are told.

    Raises:
      ValueError: It is no image of `FORMATS`, or its header is damaged. The message is the reason.
    """
    kind = format_of(data)
    if kind is None:
        raise ValueError("not an image")
    try:
        return _size(data, kind, channels)
    except MemoryError:  # It is the host's fault, not the image's.
        raise
    except Exception as error:
        reason = (
            f"damaged {kind}" if isinstance(error, UnidentifiedImageError) else reason_of(error)
        )
        raise ValueError(reason) from error


def is_plain(data: bytes, value_range: depth.ValueRange | None = None, channels: int = 3) -> bool:
    """Whether TensorFlow decodes an image as it is; see `transcode`."""
    kind = format_of(data)
    return channels in ENCODED and (
        kind == "JPEG" or (kind == "PNG" and (value_range is None or not depth.is_deep_png(data)))
    )


def transcode(data: bytes, value_range: depth.ValueRange | None = None, channels: int = 3) -> bytes:
    """Converts an image to PNG of 8 bits, unless TensorFlow decodes it as it is.

    TensorFlow decodes JPEG and PNG. Of a PNG of 16 bits it takes the upper 8.

    Args:
      data: The encoded image, of one of `FORMATS`. Of several frames, the first one is used.
      value_range: The values that become black and white in images of more than 8 bits, whose
        other values lie between or are clipped. With None they are 0 and 65,535 for integers, 0 and
        255 for those of 8 bits, and 0 and 1 for floating-point numbers. In a .npy file it is that
        of 8 bits too.
      channels: The number of channels that are wanted, one of `ENCODED`; an encoded image keeps its
        own.

    Raises:
      ValueError: The image cannot be decoded, has values outside the range that None stands for, or
        has another number of channels. The message is the reason.

    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (2, 2)).save(buffer, "GIF")
    >>> transcode(buffer.getvalue())[:4]
    b'\\x89PNG'
    """
    if is_plain(data, value_range):
        return data
    with _decoding(data, channels) as count, memory.hold(9 * count):
        image = _converted(data, value_range, channels)
        if channels == 1:  # Colours are refused.
            arrays.arranged(np.asarray(image), channels)
        return as_png(image)


def _converted(data: bytes, value_range: depth.ValueRange | None, channels: int) -> Image.Image:
    """An image that TensorFlow does not decode, grey or in colours of 8 bits.

    The arguments and the errors are those of `transcode`; the memory is held by the caller.
    """
    kind = format_of(data)
    if kind is None:
        raise ValueError("not an image")
    if is_array(data, kind, value_range):
        levels = arrays.levels(data, kind, channels=channels, value_range=value_range)
        return Image.fromarray(levels[..., 0] if channels == 1 else levels)
    values = depth.values(data, kind)
    if kind == "PNG" and values is not None:
        return Image.fromarray(depth.to_bytes(values, value_range))
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        if values is not None:
            if value_range is not None:
                values = values * depth.unit(image, data)  # The file's own values.
            grey = depth.to_bytes(values, value_range)
            return Image.fromarray(255 - grey if depth.white_is_0(image) else grey)
        if value_range is not None and (narrowed := depth.narrowed(image, data)):
            raise ValueError(f"{narrowed}; value_range can be applied to it as a PNG")
        return image.convert("RGB")


def is_array(data: bytes, kind: str, value_range: depth.ValueRange | None) -> bool:
    """Whether an image is read as an array: a .npy file, or a TIFF of which Pillow loses a part."""
    if kind != "TIFF":
        return kind == "NPY"
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            narrowed = value_range is not None and bool(depth.narrowed(image, data))
            return narrowed or arrays.is_misread(image)
    except UnidentifiedImageError:
        return True


def as_png(image: Image.Image) -> bytes:
    """Encodes an image as PNG, with the fastest compression."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _size(data: bytes, kind: str, channels: int) -> tuple[int, int]:
    """The width and the height of an encoded image, from its header."""
    if kind == "JPEG":
        height, width, _ = tf.io.extract_jpeg_shape(data).numpy()
        return int(width), int(height)
    if kind == "PNG":  # Pillow refuses a PNG with a large colour profile or text.
        if data[12:16] != b"IHDR" or len(data) < 33:
            raise UnidentifiedImageError
        return struct.unpack(">II", data[16:24])
    if kind == "NPY":
        return arrays.size(data, kind, channels)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as header:
            return header.size
    except UnidentifiedImageError:
        if kind != "TIFF":
            raise
        return arrays.size(data, kind, channels)


def reason_of(error: Exception) -> str:
    """The message of an error, without TensorFlow's names of operations."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", one_line(error, 300)).strip()[:200]
