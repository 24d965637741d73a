"""The random numbers of the operations that the paper's study adds to those of its pipeline.

The paper shows the operations and gives no law for them. Each law here names its source, or says
that it is ours.

Reference: Chen et al. 2020, figures 4 and 5, and appendix B.2 for equalization, solarization and
motion blur (arXiv 2002.05709).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from simclr_jax.augment.keys import uniform, whether

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
    """Draws of the Gaussian noise.

    Attributes:
      applied: Whether noise is added, (N,) bool.
      seed: The seed of the noise of every pixel and channel, (N, 2) int64.
    """

    applied: np.ndarray
    seed: np.ndarray


class Motion(NamedTuple):
    """Draws of the motion blur.

    Attributes:
      applied: Whether the view is blurred, (N,) bool.
      angle: The direction of the motion in radians, from that of x to that of y, (N,) float32.
    """

    applied: np.ndarray
    angle: np.ndarray


def cutout_centres(seeds: np.ndarray, size: int) -> np.ndarray:
    """Draws the centre of the square that cutout covers, uniformly from the pixels of the view.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.
      size: The height and the width of the view, in pixels.

    Returns:
      The centres (y, x) in pixels, (N, 2) int32.

    Reference: DeVries & Taylor 2017, section 3.2 (arXiv 1708.04552): always applied, and near a
    border only a part of the square is inside.
    """
    return np.floor(uniform(seeds, 2, 0.0, size)).astype(np.int32)


def cutout_side(size: int) -> int:
    """The side of the square that cutout covers: half of the view's, as on CIFAR-10 in its paper.

    Args:
      size: The height and the width of the view, in pixels.

    >>> cutout_side(32), cutout_side(224)
    (16, 112)
    """
    return size // 2


def quarter_turns(seeds: np.ndarray) -> np.ndarray:
    """Draws the number of turns by 90° to the left: 0, 1, 2 or 3 with the same probability.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.

    Returns:
      The number of turns, (N,) int32.

    Reference: Gidaris et al. 2018 (arXiv 1803.07728), whom the paper names for rotations.
    """
    return np.floor(uniform(seeds, 1, 0.0, 4.0)[:, 0]).astype(np.int32)


def noise(seeds: np.ndarray, field_seeds: np.ndarray) -> Noise:
    """Draws whether noise is added, with probability 1/2, and the seed of the noise.

    The law is ours: that of the transformation 'noise' in `augment.transformations`.

    Args:
      seeds: The seeds (N, 2) int64 of whether it is added, from `keys.fold`.
      field_seeds: The seeds (N, 2) int64 of the noise itself, from `keys.fold`.
    """
    return Noise(whether(seeds, NOISE_PROBABILITY), field_seeds)


def sobel(seeds: np.ndarray) -> np.ndarray:
    """Draws whether a view is replaced by its edges: with probability 1/2, (N,) bool.

    The law is ours: that of the transformation 'sobel' in `augment.transformations`.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.
    """
    return whether(seeds, SOBEL_PROBABILITY)


def equalize(seeds: np.ndarray) -> np.ndarray:
    """Draws whether histograms are equalized: with probability 0.2, as solarization, (N,) bool.

    The law is ours.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.
    """
    return whether(seeds, EQUALIZE_PROBABILITY)


def solarize(seeds: np.ndarray) -> np.ndarray:
    """Draws whether a view is solarized: with probability 0.2, (N,) bool.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.

    Reference: Grill et al. 2020, appendix B (arXiv 2006.07733), for one of their two views.
    """
    return whether(seeds, SOLARIZE_PROBABILITY)


def motion(seeds: np.ndarray) -> Motion:
    """Draws the motion blur: with probability 1/2, as the blur, in any direction.

    The law is ours.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.
    """
    numbers = uniform(seeds, 2)
    return Motion(numbers[:, 0] < MOTION_PROBABILITY, numbers[:, 1] * np.float32(math.pi))
