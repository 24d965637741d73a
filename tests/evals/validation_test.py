"""The images that values are chosen by: a part of the training split, or a split of their own."""

import numpy as np

from simclr_jax.evals import validation


def test_a_part_of_every_class_is_held_out_as_the_seed_says(rng):
    labels = np.concatenate([np.full(count, k) for k, count in enumerate([100, 41, 4, 2, 1])])
    labels = rng.permutation(np.append(labels, [-1] * 9))
    held = validation.held_out_rows(labels, 0.1, seed=0)
    assert np.bincount(labels[held], minlength=5).tolist() == [10, 4, 1, 1, 0]
    assert not held[labels < 0].any()
    assert (validation.held_out_rows(labels, 0.1, seed=0) == held).all()
    assert (validation.held_out_rows(labels, 0.1, seed=1) != held).any()
    assert validation.held_out_rows(np.array([0, 0, 1, 1]), 0.9, seed=0).sum() == 2
