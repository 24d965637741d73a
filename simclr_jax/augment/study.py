"""The random numbers of the operations that the paper's study adds to those of its pipeline.

The paper shows the operations and gives no law for them. Each law here names its source, or says
that it is ours.

Reference: Chen et al. 2020, figures 4 and 5, and appendix B.2 for equalization, solarization and
motion blur (arXiv 2002.05709).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from etils import epy

from simclr_jax.augment.keys import uniform

with epy.lazy_imports():
    import tensorflow as tf

NOISE_PROBABILITY = 0.5
SOBEL_PROBABILITY = 0.5
NOISE_SIGMA = 0.1  # The standard deviation of the noise, for images from 0 to 1.
# The magnitude of Sobel's gradient at a straight edge from black to white, which becomes 1.
SOBEL_SCALE = 4.0
CUTOUT_FILL = 0.5  # The grey of the square, for images from 0 to 1.


EQUALIZE_PROBABILITY = 0.2
SOLARIZE_PROBABILITY = 0.2
SOLARIZE_FROM = 0.5  # The lowest value that is inverted, for images from 0 to 1.
MOTION_PROBABILITY = 0.5


class Noise(NamedTuple):
    """A draw of the Gaussian noise.

    Attributes:
      applied: Whether noise is added, a bool scalar.
      seed: The seed (2,) int64 of the noise of every pixel and channel.
    """

    applied: tf.Tensor
    seed: tf.Tensor


class Motion(NamedTuple):
    """A draw of the motion blur.

    Attributes:
      applied: Whether the view is blurred, a bool scalar.
      angle: The direction of the motion in radians, from that of x to that of y, float32.
    """

    applied: tf.Tensor
    angle: tf.Tensor


def cutout_centre(seed: tf.Tensor, size: int) -> tf.Tensor:
    """Draws the centre of the square that cutout covers, uniformly from the pixels of the view.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.
      size: The height and the width of the view, in pixels.

    Returns:
      The centre (y, x) in pixels, (2,) int32.

    Reference: DeVries & Taylor 2017, section 3.2 (arXiv 1708.04552): always applied, and near a
    border only a part of the square is inside.
    """
    return tf.cast(tf.floor(uniform(seed, (2,), 0.0, float(size))), tf.int32)


def cutout_side(size: int) -> int:
    """The side of the square that cutout covers: half of the view's, as on CIFAR-10 in its paper.

    Args:
      size: The height and the width of the view, in pixels.

    >>> cutout_side(32), cutout_side(224)
    (16, 112)
    """
    return size // 2


def quarter_turns(seed: tf.Tensor) -> tf.Tensor:
    """Draws the number of turns by 90° to the left: 0, 1, 2 or 3 with the same probability.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.

    Returns:
      The number of turns, an int32 scalar.

    Reference: Gidaris et al. 2018 (arXiv 1803.07728), whom the paper names for rotations.
    """
    return tf.cast(tf.floor(uniform(seed, (), 0.0, 4.0)), tf.int32)


def noise(seed: tf.Tensor, field_seed: tf.Tensor) -> Noise:
    """Draws whether noise is added, with probability 1/2, and the seed of the noise.

    The law is ours: that of the transformation 'noise' in `augment.transformations`.

    Args:
      seed: The seed (2,) int64 of whether it is added, from `keys.fold`.
      field_seed: The seed (2,) int64 of the noise itself, from `keys.fold`.
    """
    return Noise(uniform(seed, (), 0.0, 1.0) < NOISE_PROBABILITY, field_seed)


def sobel(seed: tf.Tensor) -> tf.Tensor:
    """Draws whether a view is replaced by its edges: with probability 1/2, a bool scalar.

    The law is ours: that of the transformation 'sobel' in `augment.transformations`.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.
    """
    return uniform(seed, (), 0.0, 1.0) < SOBEL_PROBABILITY


def equalize(seed: tf.Tensor) -> tf.Tensor:
    """Draws whether histograms are equalized: with probability 0.2, as solarization, a bool scalar.

    The law is ours.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.
    """
    return uniform(seed, (), 0.0, 1.0) < EQUALIZE_PROBABILITY


def solarize(seed: tf.Tensor) -> tf.Tensor:
    """Draws whether a view is solarized: with probability 0.2, a bool scalar.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.

    Reference: Grill et al. 2020, appendix B (arXiv 2006.07733), for one of their two views.
    """
    return uniform(seed, (), 0.0, 1.0) < SOLARIZE_PROBABILITY


def motion(seed: tf.Tensor) -> Motion:
    """Draws the motion blur: with probability 1/2, as the blur, in any direction.

    The law is ours.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.
    """
    numbers = uniform(seed, (2,), 0.0, 1.0)
    return Motion(numbers[0] < MOTION_PROBABILITY, numbers[1] * math.pi)
