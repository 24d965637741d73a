"""Checks that images can be decoded, of one or of many together."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epy

from simclr_jax.data import images
from simclr_jax.data.depth import ValueRange

with epy.lazy_imports():
    import tensorflow as tf

TOGETHER_PIXELS = 2**18  # The largest number of pixels of an image that is decoded with others.
# The largest number of pixels of a JPEG whose pixels are copied for less than it takes to decode a
# part of it again.
COPIED_PIXELS = 2**14


class Checked(NamedTuple):
    """An image that can be decoded.

    Attributes:
      height: The number of rows of pixels.
      width: The number of columns of pixels.
      pixels: The pixels (H, W, C), uint8; None for JPEGs of more than `COPIED_PIXELS`, and for what
        was converted.
      converted: The image as PNG, where TensorFlow does not decode it as it is and it is large, or
        else None.
    """

    height: int
    width: int
    pixels: np.ndarray | None
    converted: bytes | None = None


def checked(data: bytes, value_range: ValueRange | None = None, channels: int = 3) -> Checked:
    """Checks that an image can be decoded; see `images.pixels` for the arguments and the error.

    A JPEG of more than `COPIED_PIXELS` is decoded at an eighth of its size, for which all of its
    data is read. Where one channel is wanted, all pixels tell whether it is grey. What TensorFlow
    does not decode and has more than `TOGETHER_PIXELS` is converted to PNG.
    """
    if images.format_of(data) == "JPEG" and channels == 3:
        width, height = images.size(data, channels)
        if COPIED_PIXELS < width * height <= images.MAX_PIXELS:
            try:
                with images.memory.hold(3 * width * height):
                    _eighth(data)
                    return Checked(height, width, None)
            except (MemoryError, tf.errors.ResourceExhaustedError):
                raise
            except Exception as error:
                raise ValueError(images.reason_of(error)) from error
    if channels in images.ENCODED and data and not images.is_plain(data, value_range, channels):
        width, height = images.size(data, channels)
        if width * height > TOGETHER_PIXELS:
            return Checked(height, width, None, images.transcode(data, value_range, channels))
    pixels = images.pixels(data, value_range, channels)
    height, width, _ = pixels.shape
    return Checked(height, width, pixels)


def _eighth(data: tf.Tensor) -> tf.Tensor:
    """A JPEG at an eighth of its size, for which all of its data is read."""
    return tf.io.decode_jpeg(data, channels=3, ratio=8)


def decoded_together(data: Sequence[bytes]) -> list[np.ndarray | None]:
    """Decodes JPEG and PNG images in one graph, without Python's lock, unless they are large.

    Args:
      data: The files' contents.

    Returns:
      The pixels (H, W, 3) uint8 of each image of at most `TOGETHER_PIXELS`, as TensorFlow
      decodes them. Larger and damaged ones have None.
    """
    return [found and found.pixels for found in _together(data, TOGETHER_PIXELS)]


def checked_together(data: Sequence[bytes], channels: int = 3) -> list[Checked | None]:
    """Checks JPEG and PNG images in one graph, as `checked` does; see `decoded_together`.

    Args:
      data: The files' contents.
      channels: The number of channels C that is wanted. The pixels have 3.
    """
    return _together(data, COPIED_PIXELS if channels == 3 else TOGETHER_PIXELS)


def _together(data: Sequence[bytes], copied: int) -> list[Checked | None]:
    """Checks images in one graph. JPEGs of more than `copied` pixels have none in the result."""
    if not data:
        return []
    size = _size_of_all(data)
    try:
        if size is not None and size[0] * size[1] <= TOGETHER_PIXELS:
            pixels = _of_one_size()(tf.constant(data, tf.string)).numpy()
            return [Checked(*size, own) for own in pixels]
        pixels, shapes, seen = _in_graph(copied)(tf.constant(data, tf.string))
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        # TensorFlow's message may quote an image's bytes, of which Python can make no text.
        if len(data) == 1:
            return [None]
        half = len(data) // 2  # The damaged image is looked for; the others are decoded again.
        return _together(data[:half], copied) + _together(data[half:], copied)
    flat, ends = pixels.flat_values.numpy(), pixels.row_splits.numpy()
    found: list[Checked | None] = []
    for row, ((height, width), value) in enumerate(zip(shapes.numpy(), seen.numpy(), strict=True)):
        own = flat[ends[row] : ends[row + 1]]
        image = own.reshape(height, width, 3) if own.size else None
        found.append(Checked(int(height), int(width), image) if value else None)
    return found


def _size_of_all(data: Sequence[bytes]) -> tuple[int, int] | None:
    """The height and width of PNG images that are all of one size; None for others."""
    sides = {each[16:24] if each[:4] == b"\x89PNG" else b"" for each in data}
    side = sides.pop()
    if sides or len(side) < 8:
        return None
    width, height = struct.unpack(">II", side)
    return height, width


@functools.cache
def _of_one_size() -> Callable[[tf.Tensor], tf.Tensor]:
    """The function that decodes PNG images of one size (n,) to pixels (n, H, W, 3).

    It takes half the time of `_in_graph`, which allows for any size and format.
    """

    def one(data: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_png(data, channels=3)

    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(
        lambda data: tf.map_fn(one, data, fn_output_signature=spec, parallel_iterations=64),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


@functools.cache
def _in_graph(copied: int) -> Callable[[tf.Tensor], tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]]:
    """The function that decodes images (n,): pixels, sizes, and whether each was decoded, as ints.

    Large images are not decoded, and of JPEGs of more than `copied` pixels an eighth alone.
    """

    def png_shape(data: tf.Tensor) -> tf.Tensor:
        sides = tf.strings.substr(data, 16, 8)
        return tf.reverse(tf.io.decode_raw(sides, tf.int32, little_endian=False), [0])

    def one(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        is_png = tf.strings.substr(data, 0, 4) == b"\x89PNG"
        shape = tf.cond(
            is_png,
            lambda: png_shape(data),
            lambda: tf.io.extract_jpeg_shape(data)[:2],
        )
        count, none = tf.reduce_prod(tf.cast(shape, tf.int64)), tf.zeros([0], tf.uint8)

        def whole() -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            return tf.reshape(image, [-1]), tf.constant(1)

        def part() -> tuple[tf.Tensor, tf.Tensor]:
            # The result depends on a pixel, so that the decoding is not optimised away.
            return none, 1 + tf.cast(_eighth(data)[0, 0, 0], tf.int32)

        choices = [
            (count > TOGETHER_PIXELS, lambda: (none, tf.constant(0))),
            (~is_png & (count > copied), part),
        ]
        pixels, seen = tf.case(choices, default=whole)
        return pixels, shape, seen

    flat = tf.RaggedTensorSpec([None], tf.uint8, ragged_rank=0)
    spec = flat, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32)
    return tf.function(
        lambda data: tf.map_fn(one, data, fn_output_signature=spec, parallel_iterations=64),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
