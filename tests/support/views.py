"""Keys, images and views that the tests of augmentations share."""

import numpy as np
import tensorflow as tf

from simclr_jax.augment import crops, keys
from simclr_jax.augment.draws import Views

PIPELINE = ("crop", "flip", "jitter", "grey", "blur")
ALL = Views(
    size=16, ops=(PIPELINE, PIPELINE), strength=1.0, brightness="v2",
    crop_area=crops.AREA, colour_on="host", blur_on="host",
)  # fmt: skip


def image_of(rng, height=40, width=50):
    """A random image (height, width, 3)."""
    return tf.constant(rng.uniform(size=(height, width, 3)), tf.float32)


def some_keys(count, view=0, seed=0):
    """The keys (count, 2) of `count` examples of one epoch."""
    return keys.image_keys(seed, 0, np.arange(count), view)


def row(draw, number=0):
    """One image's numbers of a draw of many."""
    return tf.nest.map_structure(lambda array: tf.constant(array[number]), draw)
