"""Keys, images and views that the tests of augmentations share."""

import numpy as np
import tensorflow as tf

from simclr_jax.augment import draws, keys
from simclr_jax.augment.draws import Views

PIPELINE = ("crop", "flip", "jitter", "grey", "blur")
ALL = Views(
    size=16, ops=(PIPELINE, PIPELINE), strength=1.0, brightness="v2",
    crop_area=draws.CROP_AREA, blur_on="host",
)  # fmt: skip


def image_of(rng, height=40, width=50):
    """A random image (height, width, 3)."""
    return tf.constant(rng.uniform(size=(height, width, 3)), tf.float32)


def some_keys(count, view=0, seed=0):
    """The keys of `count` examples of one epoch."""
    return [keys.image_key(seed, tf.constant(0), tf.constant(i), view) for i in range(count)]


def mapped(fn, count):
    """The value of fn(index) for every index, computed inside a tf.data map."""
    dataset = tf.data.Dataset.range(count).map(fn, num_parallel_calls=2)
    return np.stack(list(dataset.as_numpy_iterator()))
