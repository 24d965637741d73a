"""The operations that the paper's study adds to its pipeline, which the host applies to a view.

Images are (S, S, 3) float32. They may leave the range [0, 1], as after a bicubic resize; an
operation whose result depends on that range clips them to it.

Reference: Chen et al. 2020, figures 4 and 5 (arXiv 2002.05709).
"""

from __future__ import annotations

from etils import epy

from simclr_jax.augment.draws import Views
from simclr_jax.augment.study import CUTOUT_FILL, NOISE_SIGMA, SOBEL_SCALE, Noise, cutout_side

with epy.lazy_imports():
    import tensorflow as tf


def cutout(image: tf.Tensor, centre: tf.Tensor, views: Views) -> tf.Tensor:
    """Covers a square of half the view's side with grey.

    In its paper the square has the mean of the normalised images, 0. The grey 0.5 stands for it
    here, where images are not normalised.

    Args:
      image: The image (S, S, 3), float32.
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
      image: The image (S, S, 3), float32.
      turns: The number of turns by 90°, an int32 scalar from 0 to 3.
      views: The settings of the augmentation.
    """
    return tf.ensure_shape(tf.image.rot90(image, turns), (views.size, views.size, 3))


def noise(image: tf.Tensor, draw: Noise, views: Views) -> tf.Tensor:
    """Adds Gaussian noise to each channel of each pixel and clips the sum, if the draw says so.

    Args:
      image: The image (S, S, 3), float32.
      draw: The random numbers, from `study.noise`.
      views: The settings of the augmentation.
    """

    def noisy() -> tf.Tensor:
        shape = (views.size, views.size, 3)
        # TensorFlow's default generator may differ between devices and versions.
        added = tf.random.stateless_normal(shape, draw.seed, 0.0, NOISE_SIGMA, alg="philox")
        return tf.clip_by_value(tf.clip_by_value(image, 0.0, 1.0) + added, 0.0, 1.0)

    return tf.cond(draw.applied, noisy, lambda: image)


def sobel(image: tf.Tensor, applied: tf.Tensor, views: Views) -> tf.Tensor:
    """Replaces an image by the magnitude of Sobel's gradient of each channel, if a bool is true.

    A straight edge from black to white is 1, and beyond the border the image is mirrored.

    Args:
      image: The image (S, S, 3), float32.
      applied: Whether to replace the image, a bool scalar.
      views: The settings of the augmentation, which are not used.
    """

    def edges() -> tf.Tensor:
        gradient = tf.image.sobel_edges(tf.clip_by_value(image, 0.0, 1.0)[None])[0]
        return tf.clip_by_value(tf.norm(gradient, axis=-1) / SOBEL_SCALE, 0.0, 1.0)

    return tf.cond(applied, edges, lambda: image)
