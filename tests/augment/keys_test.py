"""Keys and the numbers drawn from them: TensorFlow's, all different, and uncorrelated."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.augment import keys, philox


def test_keys_never_collide():
    seen = {
        tuple(keys.fold(keys.image_keys(seed, epoch, index, view), draw).tolist())
        for seed in (0, 1, 2**31 - 1)
        for epoch in (0, 1, 2**31 - 1)
        for index in (0, 1, 255, 256, 2**40)
        for view in (0, 1, 255)
        for draw in range(15)
    }
    assert len(seen) == 15 * 3 * 3 * 5 * 3


def test_keys_of_many_examples_are_those_of_each():
    epoch, index = np.array([0, 3, 7]), np.array([5, 2**40, 1])
    together = keys.image_keys(9, epoch, index, 1)
    alone = [keys.image_keys(9, e, i, 1) for e, i in zip(epoch, index, strict=True)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(keys.uniform(together, 3)[1], keys.uniform(alone[1], 3))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 224.0)])
def test_numbers_are_tensorflows(rng, low, high):
    seeds = rng.integers(-(2**62), 2**62, (20, 2))
    expected = [
        tf.random.stateless_uniform((7,), seed, low, high, alg="philox").numpy() for seed in seeds
    ]
    np.testing.assert_array_equal(keys.uniform(seeds, 7, low, high), expected)


def test_numbers_further_on_are_those_of_the_whole_sequence(rng):
    start = philox.scramble(rng.integers(0, 2**62, (3, 2)))
    whole = philox.bits(*start, 40)
    np.testing.assert_array_equal(philox.bits(*start, 12, start=28), whole[:, 28:])


def test_neighbouring_examples_and_epochs_are_uncorrelated():
    index = 2 * np.arange(4000)
    kinds = [keys.image_keys(0, epoch, index + more, 0) for epoch, more in ((0, 0), (1, 0), (0, 1))]
    numbers = [keys.uniform(keys.fold(kind, 1), 1)[:, 0] for kind in kinds]
    assert np.abs(np.corrcoef(numbers) - np.eye(3)).max() < 0.05
