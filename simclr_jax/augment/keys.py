"""The keys of views, and the seeds and random numbers that are derived from them.

A number is a function of its seed alone, so an example is augmented in the same way on any host and
after any restart. The functions take one key or many at once.
"""

from __future__ import annotations

import numpy as np

from simclr_jax.augment import philox


def image_keys(seed: int, epoch: np.ndarray, index: np.ndarray, view: int) -> np.ndarray:
    """The keys of one view of examples.

    The four numbers are packed rather than hashed, so different arguments give different keys.

    Args:
      seed: The seed of the run, from 0 and below 2³¹.
      epoch: The epoch of each example, (…) int from 0 and below 2³¹.
      index: The index in the dataset of each example, (…) int from 0 and below 2⁴⁷.
      view: The number of the view, from 0 and below 2⁸.

    Returns:
      The keys (…, 2) int64.

    >>> image_keys(1, np.array([2]), np.array([3]), view=1)
    array([[4294967298,     196864]])
    """
    high = np.int64(seed * 2**32) + np.asarray(epoch, np.int64)
    low = np.asarray(index, np.int64) * 2**16 + view * 2**8
    return np.stack(np.broadcast_arrays(high, low), axis=-1)


def of_images(keys: np.ndarray) -> np.ndarray:
    """The keys (…, 2) int64 of the first view of images, from those of any of their views.

    >>> one, other = (image_keys(1, 2, 3, view) for view in (0, 5))
    >>> bool((of_images(other) == one).all())
    True
    """
    return keys - np.stack([np.zeros_like(keys[..., 1]), keys[..., 1] % 2**16], axis=-1)


def fold(keys: np.ndarray, number: int) -> np.ndarray:
    """Derives seeds from the keys of views.

    Args:
      keys: The keys (…, 2) int64 of the views, from `image_keys`.
      number: The number of the seed, from 0 and below 2⁸.

    Returns:
      The seeds (…, 2) int64.
    """
    return keys + np.array([0, number])


def uniform(seeds: np.ndarray, count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Draws from the uniform distribution U(low, high), as TensorFlow's `stateless_uniform` does.

    Args:
      seeds: The seeds (…, 2) int64, from `fold`.
      count: The number of draws for each seed.
      low: The lower end of the range, included.
      high: The upper end of the range, excluded.

    Returns:
      The numbers (…, count) float32.
    """
    unit = philox.to_unit(philox.bits(*philox.scramble(seeds), count))
    return unit * np.float32(high - low) + np.float32(low)


def whether(seeds: np.ndarray, probability: float) -> np.ndarray:
    """Draws bools (…) that are true with a probability, one for each of the seeds (…, 2)."""
    return uniform(seeds, 1)[..., 0] < probability
