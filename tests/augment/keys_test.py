"""Keys and the numbers drawn from them: all different, and uncorrelated."""

import numpy as np
import tensorflow as tf

from simclr_jax.augment import keys
from support.views import mapped


def test_keys_never_collide():
    combinations = [
        (seed, epoch, index, view)
        for seed in (0, 1, 2**31 - 1)
        for epoch in (0, 1, 2**31 - 1)
        for index in (0, 1, 255, 256, 2**40)
        for view in (0, 1, 255)
    ]
    seen = {
        tuple(keys.fold(keys.image_key(s, tf.constant(e, tf.int64), i, v), draw).numpy())
        for s, e, i, v in combinations
        for draw in range(15)
    }
    assert len(seen) == 15 * len(combinations)


def test_neighbouring_examples_and_epochs_are_uncorrelated():
    def numbers(i):
        kinds = [(0, i, 0), (1, i, 0), (0, i + 1, 0)]
        return tf.concat(
            [
                keys.uniform(keys.fold(keys.image_key(0, *kind), 1), (1,), 0.0, 1.0)
                for kind in kinds
            ],
            axis=0,
        )

    table = mapped(lambda i: numbers(2 * i), 4000)
    assert np.abs(np.corrcoef(table.T) - np.eye(3)).max() < 0.05
