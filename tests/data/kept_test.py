"""Images that stay in memory: which do, and which do not."""

import numpy as np
import pytest

from simclr_jax.data.kept import Kept


def images(*sides):
    return [np.full((side, side, 3), number, np.uint8) for number, side in enumerate(sides)]


def test_images_of_the_size_of_the_first_one_are_kept():
    kept = Kept(9, 10**6)
    kept.add(np.array([4, 2, 0]), images(8, 9, 8), np.array([1, 2, 3], np.int32))
    assert kept.missing(np.arange(5)).tolist() == [1, 2, 3]
    pixels, labels = kept.of(np.array([0, 4, 0]))
    assert pixels[:, 0, 0, 0].tolist() == [2, 0, 2]
    assert labels.tolist() == [3, 1, 3]
    kept.clear()
    assert kept.missing(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("side", "most"), [(65, 10**9), (8, 9 * 8 * 8 * 3 - 1)])
def test_none_is_kept_of_large_images_or_of_too_many(side, most):
    kept = Kept(9, most)
    kept.add(np.array([0]), images(side), np.array([1], np.int32))
    assert kept.missing(np.array([0])).tolist() == [0]
