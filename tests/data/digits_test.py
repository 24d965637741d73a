"""scikit-learn's digits, divided once and for all."""

import numpy as np
import tensorflow as tf

from simclr_jax.data.digits import Digits


def test_digits_are_split_once_and_for_all():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1437, 360)
    images, labels = train.load(np.arange(1437))
    held, _ = test.load(np.arange(360))
    assert len(set(images) | set(held)) > 1790  # a few digits are drawn twice in the set itself
    assert np.bincount(labels).min() > 130
    assert tf.io.decode_png(images[0]).shape == (8, 8, 1)
