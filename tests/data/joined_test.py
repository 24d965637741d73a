"""Two splits as one."""

import numpy as np

from simclr_jax.data.digits import Digits
from simclr_jax.data.joined import Joined


def test_the_images_of_both_follow_each_other():
    train, test = Digits("train"), Digits("test")
    train.split, test.split = "train", "test"
    both = Joined([train, test])
    assert (len(both), both.split, both.num_classes) == (1797, "train + test", 10)
    order = [1796, 0, 1437, 1436, 1437]
    images, labels = both.load(order)
    expected = [test.load([359]), train.load([0]), test.load([0]), train.load([1436])]
    expected.append(expected[2])
    assert images == [found[0] for found, _ in expected]
    assert labels.tolist() == [int(label[0]) for _, label in expected]
    assert labels.tolist() == both.labels()[order].tolist()
    assert [both.name(0), both.name(1437)] == [train.name(0), test.name(0)]


def test_images_of_one_of_them_alone_can_be_loaded():
    both = Joined([Digits("train"), Digits("test")])
    _, labels = both.load(np.arange(1440, 1443))
    assert labels.tolist() == Digits("test").labels()[3:6].tolist()
