"""The windows of large images in which the crops of all views lie, and which alone are decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

# A decoder computes the colours at the edge of a window without its neighbours. So the window is
# wider by this number of pixels, with which the crops are those of the whole image, to the bit.
_MARGIN = 2
_LEAST_PIXELS = 2**18  # Of smaller images a window takes about as long as the whole image.


def around(boxes: Sequence[np.ndarray], sizes: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The smallest windows around the crops of each image; of small images the whole image.

    Args:
      boxes: The crops (y, x, height, width) in pixels of each view, (n, 4) int each.
      sizes: The heights and the widths of the images in pixels, (n, 2) int.
      allowed: Whether an image may have a window, (n,) bool.

    Returns:
      The windows (y, x, height, width) in pixels, (n, 4) int32.

    >>> boxes = [np.array([[100, 200, 300, 400]]), np.array([[0, 300, 350, 450]])]
    >>> around(boxes, np.array([[600, 800]]), np.array([True])).tolist()
    [[0, 198, 402, 554]]
    """
    whole = of_whole(sizes)
    if not boxes:
        return whole
    first = np.min([box[:, :2] for box in boxes], axis=0)
    end = np.max([box[:, :2] + box[:, 2:] for box in boxes], axis=0)
    first, end = np.maximum(first - _MARGIN, 0), np.minimum(end + _MARGIN, sizes)
    part = allowed & (np.prod(sizes, axis=1, dtype=np.int64) >= _LEAST_PIXELS)
    windows = np.concatenate([first, end - first], axis=1).astype(np.int32)
    return np.where(part[:, None], windows, whole)


def of_whole(sizes: np.ndarray) -> np.ndarray:
    """The windows (n, 4) int32 that are all of the images of some heights and widths (n, 2)."""
    return np.concatenate([np.zeros_like(sizes), sizes], axis=1).astype(np.int32)


def moved(box: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Crops (n, 4) int32 of images, as crops of their windows (n, 4)."""
    return np.concatenate([box[:, :2] - window[:, :2], box[:, 2:]], axis=1).astype(np.int32)


def decode(data: tf.Tensor, window: tf.Tensor, size: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Decodes the window of an image.

    Args:
      data: The content of a JPEG or PNG, a string scalar; only that of a JPEG may have a window
        that is less than the image.
      window: The window (y, x, height, width) in pixels, (4,) int32.
      size: The height and the width of the image, (2,) int.
      channels: The number of channels C, one of `images.ENCODED`.

    Returns:
      The pixels (height, width, C), uint8, as they are when the whole image is decoded.
    """
    image = tf.cond(
        tf.reduce_all(window[2:] == tf.cast(size, tf.int32)),
        lambda: tf.io.decode_image(data, channels=channels, expand_animations=False),
        lambda: tf.image.decode_and_crop_jpeg(data, window, channels=channels),
    )
    return tf.ensure_shape(image, (None, None, channels))
