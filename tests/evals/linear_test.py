"""Linear evaluation on features whose answer is known."""

from types import SimpleNamespace

import chex
import numpy as np
import pytest

from simclr_jax.errors import ArgumentError
from simclr_jax.evals import linear, scores


def test_sgd_separates_separable_features(blobs):
    train, test = blobs
    steps = linear.num_steps(num_examples=300, batch_size=64, epochs=20)
    params = linear.fit(
        linear.shuffled(train, batch_size=64, steps=steps, seed=0),
        classes=5,
        learning_rate=linear.cosine(0.1, batch_size=64, steps=steps),
        weight_decay=0.0,
        seed=0,
    )
    logits = linear.logits(params, test.x, batch_size=40)
    chex.assert_shape(logits, (101, 5))
    assert scores.accuracies(logits, test.labels)["top1"] > 0.8


def test_few_labels_report_every_draw(blobs):
    train, test = blobs
    options = {"classes": 5, "per_class": 3, "draws": 4, "c": 0.1}
    results = linear.few_labels(train, test, seed=0, **options)
    assert len(results) == 4
    assert results == linear.few_labels(train, test, seed=0, **options)
    assert results != linear.few_labels(train, test, seed=1, **options)
    assert np.mean([result["top1"] for result in results]) > 0.5
    with pytest.raises(ValueError, match="at most"):
        linear.few_labels(train, test, seed=0, **{**options, "per_class": 200})


def test_an_image_that_ends_an_evaluation_is_not_taken_for_too_few_labels():
    def unreadable(source):
        raise ArgumentError("on_bad_image", "error", "x.jpg is unreadable")

    keys = SimpleNamespace(labels_per_class=3)
    task = SimpleNamespace(
        check_labels=lambda: None, tested={}, config=SimpleNamespace(linear=keys, seed=0),
        train=None, test=None, features=unreadable,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match=r"x\.jpg is unreadable"):
        linear.run(task)
