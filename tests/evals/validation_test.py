"""The images that values are chosen by: a part of the training split, or a split of their own."""

import numpy as np

from simclr_jax.evals import validation
from simclr_jax.evals.features import Features


def test_a_part_of_every_class_is_held_out_as_the_seed_says(rng):
    labels = np.concatenate([np.full(count, k) for k, count in enumerate([100, 41, 4, 2, 1])])
    labels = rng.permutation(np.append(labels, [-1] * 9))
    held = validation.held_out_rows(labels, 0.1, seed=0)
    assert np.bincount(labels[held], minlength=5).tolist() == [10, 4, 1, 1, 0]
    assert not held[labels < 0].any()
    assert (validation.held_out_rows(labels, 0.1, seed=0) == held).all()
    assert (validation.held_out_rows(labels, 0.1, seed=1) != held).any()
    assert validation.held_out_rows(np.array([0, 0, 1, 1]), 0.9, seed=0).sum() == 2


def test_of_images_with_several_labels_a_part_of_all_is_held_out():
    labels = np.ones((43, 3), np.int8)
    labels[[5, 6, 7]] = -1
    held = validation.held_out_rows(labels, 0.1, seed=0)
    assert held.sum() == 4
    assert not held[5:8].any()
    assert (validation.held_out_rows(labels, 0.1, seed=0) == held).all()
    assert (validation.held_out_rows(labels, 0.1, seed=1) != held).any()


def test_the_images_to_choose_by_may_lie_in_several_parts(monkeypatch):
    monkeypatch.setattr(validation, "ROWS", 4)
    x, labels = np.arange(9, dtype=np.float32)[:, None], np.arange(9)
    parts = [Features(x[:6], labels[:6]), Features(x[6:], labels[6:])]
    which = np.array([0, 1, 0, 0, 0, 1, 1, 0, 1], bool)
    chosen = validation.Chosen(parts, ~which, which, "some")
    found = [labels for _, labels in chosen.to_choose_by()]
    assert np.concatenate(found).tolist() == [1, 5, 6, 8]
