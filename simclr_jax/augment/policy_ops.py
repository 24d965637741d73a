"""The operations of the policies, as the host applies them: on pixels of 256 levels.

Images are (S, S, 3) int32 from 0 to 255, and their operations those of Pillow, which AutoAugment's
authors used: they give Pillow's values, or the next one where a value is rounded.

Reference: Cubuk et al. 2018, table 6 (arXiv 1805.09501).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from etils import epy

from simclr_jax.augment.draws import Views
from simclr_jax.augment.policies import OPERATIONS, Steps

with epy.lazy_imports():
    import tensorflow as tf

FILL = 128.0  # The grey of what a turn, a shear or a shift leaves empty; the authors'.


def policy(image: tf.Tensor, steps: Steps, views: Views) -> tf.Tensor:
    """Applies the operations that a policy has drawn.

    Args:
      image: The image (S, S, 3), float32; it is clipped to [0, 1] and rounded to 256 levels.
      steps: The random numbers, from `policies`.
      views: The settings of the augmentation.

    Returns:
      The image (S, S, 3), float32 in [0, 1].
    """
    shape = views.size, views.size, 3

    def after(pixels: tf.Tensor, step: Steps) -> tf.Tensor:
        branches = [partial(FUNCTIONS[name], pixels, step.magnitude) for name in OPERATIONS]
        return tf.ensure_shape(tf.switch_case(step.operation, branches), shape)

    pixels = tf.ensure_shape(to_levels(image), shape)
    return tf.cast(tf.foldl(after, steps, pixels), tf.float32) / 255.0  # With the branches once.


def to_levels(image: tf.Tensor) -> tf.Tensor:
    """The nearest of 256 levels, int32 from 0 to 255, of a float32 image that is clipped to [0, 1].

    >>> to_levels(tf.constant([-0.1, 0.25, 1.0])).numpy().tolist()
    [0, 64, 255]
    """
    return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255.0), tf.int32)


def identity(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The image itself."""
    return tf.identity(image)


def autocontrast(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest pixel is black and its lightest one is white."""
    low, high = tf.reduce_min(image, axis=(0, 1)), tf.reduce_max(image, axis=(0, 1))
    return tf.where(high > low, (image - low) * 255 // tf.maximum(high - low, 1), image)


def equalize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel."""

    def equalized(channel: tf.Tensor) -> tf.Tensor:
        counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256, maxlength=256)
        lightest = counts[tf.reduce_max(channel)]
        step = (tf.reduce_sum(counts) - lightest) // 255
        below = tf.cumsum(counts, exclusive=True)
        table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
        return tf.where(step > 0, tf.gather(table, channel), channel)

    return tf.stack([equalized(channel) for channel in tf.unstack(image, axis=-1)], axis=-1)


def invert(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The negative of the image."""
    return 255 - image


def rotate(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Turns the image to the left by a magnitude in degrees, about its centre."""
    angle = magnitude * (math.pi / 180.0)
    cos, sin, centre = tf.cos(angle), tf.sin(angle), image.shape[0] / 2.0
    shift = centre * (1.0 - cos + sin), centre * (1.0 - cos - sin)
    return _affine(image, (cos, -sin, shift[0]), (sin, cos, shift[1]))


def posterize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Keeps as many of the highest bits of each value as the magnitude says, rounded down."""
    step = tf.bitwise.left_shift(1, 8 - tf.cast(magnitude, tf.int32))
    return image // step * step


def solarize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Inverts the values from the magnitude on, which is rounded down."""
    return tf.where(image < tf.cast(magnitude, tf.int32), image, 255 - image)


def color(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Multiplies the difference from the grey image by the magnitude."""
    return _blend(tf.broadcast_to(_luma(image), tf.shape(image)), image, magnitude)


def contrast(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Multiplies the difference from the mean of the grey image by the magnitude."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_luma(image), tf.float32)) + 0.5)
    return _blend(tf.fill(tf.shape(image), tf.cast(mean, tf.int32)), image, magnitude)


def brightness(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Multiplies the image by the magnitude."""
    return _blend(tf.zeros_like(image), image, magnitude)


def sharpness(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Multiplies the difference from the smoothed image, within the border, by the magnitude."""
    values = tf.cast(image, tf.float32)
    means = tf.nn.avg_pool2d(values[None], 3, 1, "VALID")[0]
    smooth = tf.floor((9.0 * means + 4.0 * values[1:-1, 1:-1]) / 13.0 + 0.5)
    inner = tf.pad(tf.ones_like(smooth, tf.bool), ((1, 1), (1, 1), (0, 0)))
    smooth = tf.pad(tf.cast(smooth, tf.int32), ((1, 1), (1, 1), (0, 0)))
    return _blend(tf.where(inner, smooth, image), image, magnitude)


def shear_x(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Shifts each row to the left by the magnitude times its distance from the top."""
    return _affine(image, (1.0, magnitude, 0.0), (0.0, 1.0, 0.0))


def shear_y(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Shifts each column up by the magnitude times its distance from the left."""
    return _affine(image, (1.0, 0.0, 0.0), (magnitude, 1.0, 0.0))


def translate_x(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Shifts the image to the left by the magnitude times its side."""
    return _affine(image, (1.0, 0.0, magnitude * image.shape[0]), (0.0, 1.0, 0.0))


def translate_y(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Shifts the image up by the magnitude times its side."""
    return _affine(image, (1.0, 0.0, 0.0), (0.0, 1.0, magnitude * image.shape[0]))


# The functions (image, magnitude) → image of the operations of `policies.OPERATIONS`.
FUNCTIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
    "rotate": rotate,
    "posterize": posterize,
    "solarize": solarize,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}


def _luma(image: tf.Tensor) -> tf.Tensor:
    """The luma (S, S, 1) int32 of an image, by Pillow's weights of red, green and blue."""
    weights = tf.constant([19595, 38470, 7471])
    return (tf.reduce_sum(image * weights, axis=-1, keepdims=True) + 2**15) // 2**16


def _blend(other: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The other image, and the factor times the image's difference from it."""
    start = tf.cast(other, tf.float32)
    blended = start + factor * (tf.cast(image, tf.float32) - start)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.int32)


def _affine(image: tf.Tensor, row_x: tuple[float, ...], row_y: tuple[float, ...]) -> tf.Tensor:
    """Fetches the pixel (x, y) from where an affine map of it lies; the nearest pixel is taken.

    Args:
      image: The image (S, S, 3), int32.
      row_x: The factors of x and y and the summand that give the horizontal place. The centres of
        pixels lie at halves.
      row_y: The same for the vertical place.
    """
    rows = [(a, b, c + 0.5 * (a + b) - 0.5) for a, b, c in (row_x, row_y)]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=tf.cast(tf.stack([*rows[0], *rows[1], 0.0, 0.0]), tf.float32)[None],
        output_shape=tf.shape(image)[:2],
        fill_value=FILL,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]
