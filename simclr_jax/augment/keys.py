"""The keys of views, and the seeds and random numbers that are derived from them.

A number is a function of its seed alone, so an example is augmented in the same way on any host and
after any restart.
"""

from __future__ import annotations

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf


def image_key(seed: int, epoch: tf.Tensor, index: tf.Tensor, view: int) -> tf.Tensor:
    """The key of one view of one example in one epoch.

    The four numbers are packed rather than hashed, so different arguments give different keys.

    Args:
      seed: The seed of the run, from 0 and below 2³¹.
      epoch: The epoch, an int scalar from 0 and below 2³¹.
      index: The index of the example in the dataset, an int scalar from 0 and below 2⁴⁷.
      view: The number of the view, from 0 and below 2⁸.

    Returns:
      The key (2,) int64.

    >>> image_key(1, epoch=tf.constant(2), index=tf.constant(3), view=1).numpy().tolist()
    [4294967298, 196864]
    """
    high = tf.constant(seed * 2**32, tf.int64) + tf.cast(epoch, tf.int64)
    low = tf.cast(index, tf.int64) * 2**16 + view * 2**8
    return tf.stack([high, low])


def of_image(key: tf.Tensor) -> tf.Tensor:
    """The key (2,) int64 of the first view of an image, from that of any of its views.

    >>> keys = [image_key(1, epoch=tf.constant(2), index=tf.constant(3), view=v) for v in (0, 5)]
    >>> bool(tf.reduce_all(of_image(keys[1]) == keys[0]))
    True
    """
    return key - tf.stack([tf.zeros((), tf.int64), key[1] % 2**16])


def fold(key: tf.Tensor, number: int) -> tf.Tensor:
    """Derives a seed from the key of a view.

    Args:
      key: The key (2,) int64 of the view, from `image_key`.
      number: The number of the seed, from 0 and below 2⁸.

    Returns:
      The seed (2,) int64.
    """
    return key + tf.constant([0, number], tf.int64)


def uniform(seed: tf.Tensor, shape: tuple[int, ...], low: float, high: float) -> tf.Tensor:
    """Draws float32 numbers from the uniform distribution U(low, high).

    Args:
      seed: The seed (2,) int64, from `fold`.
      shape: The shape of the result.
      low: The lower end of the range, included.
      high: The upper end of the range, excluded.
    """
    # TensorFlow's default generator may differ between devices and versions.
    return tf.random.stateless_uniform(shape, seed, low, high, alg="philox")
