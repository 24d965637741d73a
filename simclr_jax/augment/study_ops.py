"""The operations that the paper's study adds to its pipeline, which the host applies to a view.

Images are (S, S, C) float32. They may leave the range [0, 1], as after a bicubic resize; an
operation whose result depends on that range clips them to it.

Reference: Chen et al. 2020, figures 4 and 5 and appendix B.2 (arXiv 2002.05709).
"""

from __future__ import annotations

from etils import epy

from simclr_jax.augment import policy_ops
from simclr_jax.augment.draws import Views, blur_taps
from simclr_jax.augment.study import (
    CUTOUT_FILL,
    NOISE_SIGMA,
    SOBEL_SCALE,
    SOLARIZE_FROM,
    Motion,
    Noise,
    cutout_side,
)

with epy.lazy_imports():
    import tensorflow as tf


def cutout(image: tf.Tensor, centre: tf.Tensor, views: Views) -> tf.Tensor:
    """Covers a square of half the view's side with grey.

    In its paper the square has the mean of the normalised images, 0. The grey 0.5 stands for it
    here, where images are not normalised.

    Args:
      image: The image (S, S, C), float32.
      centre: The centre (y, x) of the square in pixels, (2,) int32; it may reach beyond the image.
      views: The settings of the augmentation.

    Reference: DeVries & Taylor 2017 (arXiv 1708.04552).
    """
    side = cutout_side(views.size)
    offset = tf.range(views.size)[:, None] - (centre[None, :] - side // 2)
    inside = (offset >= 0) & (offset < side)
    return tf.where((inside[:, :1] & inside[None, :, 1])[..., None], CUTOUT_FILL, image)


def rotate(image: tf.Tensor, turns: tf.Tensor, views: Views) -> tf.Tensor:
    """Turns an image to the left.

    Args:
      image: The image (S, S, C), float32.
      turns: The number of turns by 90°, an int32 scalar from 0 to 3.
      views: The settings of the augmentation.
    """
    return tf.ensure_shape(tf.image.rot90(image, turns), (views.size, views.size, views.channels))


def noise(image: tf.Tensor, draw: Noise, views: Views) -> tf.Tensor:
    """Adds Gaussian noise to each channel of each pixel and clips the sum, if the draw says so.

    Args:
      image: The image (S, S, C), float32.
      draw: The random numbers, from `study.noise`.
      views: The settings of the augmentation.
    """

    def noisy() -> tf.Tensor:
        shape = (views.size, views.size, views.channels)
        # TensorFlow's default generator may differ between devices and versions.
        added = tf.random.stateless_normal(shape, draw.seed, 0.0, NOISE_SIGMA, alg="philox")
        return tf.clip_by_value(tf.clip_by_value(image, 0.0, 1.0) + added, 0.0, 1.0)

    return tf.cond(draw.applied, noisy, lambda: image)


def sobel(image: tf.Tensor, applied: tf.Tensor, views: Views) -> tf.Tensor:
    """Replaces an image by the magnitude of Sobel's gradient of each channel, if a bool is true.

    A straight edge from black to white is 1, and beyond the border the image is mirrored.

    Args:
      image: The image (S, S, C), float32.
      applied: Whether to replace the image, a bool scalar.
      views: The settings of the augmentation, which are not used.
    """

    def edges() -> tf.Tensor:
        gradient = tf.image.sobel_edges(tf.clip_by_value(image, 0.0, 1.0)[None])[0]
        return tf.clip_by_value(tf.norm(gradient, axis=-1) / SOBEL_SCALE, 0.0, 1.0)

    return tf.cond(applied, edges, lambda: image)


def equalize(image: tf.Tensor, applied: tf.Tensor, views: Views) -> tf.Tensor:
    """Equalizes the histogram of each channel, of 256 levels, if a bool scalar is true.

    Args:
      image: The image (S, S, C), float32.
      applied: Whether to equalize the histograms, a bool scalar.
      views: The settings of the augmentation, which are not used.
    """

    def equalized() -> tf.Tensor:
        levels = policy_ops.equalize(policy_ops.to_levels(image), tf.constant(0.0))
        return tf.cast(levels, tf.float32) / 255.0

    return tf.cond(applied, equalized, lambda: image)


def solarize(image: tf.Tensor, applied: tf.Tensor, views: Views) -> tf.Tensor:
    """Inverts the values from 0.5 on, if a bool scalar is true.

    Args:
      image: The image (S, S, C), float32.
      applied: Whether to solarize the image, a bool scalar.
      views: The settings of the augmentation, which are not used.
    """

    def solarized() -> tf.Tensor:
        clipped = tf.clip_by_value(image, 0.0, 1.0)
        return tf.where(clipped < SOLARIZE_FROM, clipped, 1.0 - clipped)

    return tf.cond(applied, solarized, lambda: image)


def motion_blur(image: tf.Tensor, draw: Motion, views: Views) -> tf.Tensor:
    """Takes the mean of an image at the places of a steady motion, if the draw says so.

    The places lie a pixel apart, and are as many as the blur's kernel is long. Between pixels the
    image is interpolated linearly; beyond its border it is mirrored.

    Args:
      image: The image (S, S, C), float32.
      draw: The random numbers, from `study.motion`.
      views: The settings of the augmentation.
    """
    taps = blur_taps(views.size)

    def moved() -> tf.Tensor:
        places = tf.range(taps, dtype=tf.float32) - (taps - 1) / 2
        x, y, zero, one = tf.cos(draw.angle) * places, tf.sin(draw.angle) * places, 0.0, 1.0
        rows = [tf.broadcast_to(row, (taps,)) for row in (one, zero, x, zero, one, y, zero, zero)]
        shifted = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.broadcast_to(image, (taps, *image.shape)),
            transforms=tf.stack(rows, axis=1),
            output_shape=(views.size, views.size),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
        return tf.reduce_mean(shifted, axis=0)

    return tf.cond(draw.applied, moved, lambda: image)
