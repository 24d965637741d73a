"""Linear evaluation on features whose answer is known."""

from types import SimpleNamespace

import chex
import numpy as np
import pytest

from simclr_jax.errors import ArgumentError
from simclr_jax.evals import linear, scores
from simclr_jax.evals.features import Features


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


@pytest.mark.parametrize(("steps", "lr", "seen"), [(300, 60.0, "nan"), (12, 60.0, r"e\+")])
def test_a_classifier_that_diverges_has_no_parameters(blobs, steps, lr, seen):
    """Whether its weights have reached infinity, or are on their way there."""
    with pytest.raises(linear.FitError, match=f"a loss of .*{seen}.* after update"):
        fit(blobs[0], steps=steps, lr=lr, weight_decay=0.1)


def test_a_rate_that_is_too_high_is_warned_of(blobs, rng, caplog):
    x, labels = blobs[0]
    fit(Features(x, rng.permutation(labels)), steps=12, lr=100.0, weight_decay=0.0)
    assert "more than the 1.61 of guessing" in caplog.text


def fit(features, *, steps, lr, weight_decay):
    return linear.fit(
        linear.shuffled(features, batch_size=64, steps=steps, seed=0), classes=5,
        learning_rate=lambda step: lr, weight_decay=weight_decay, seed=0,
    )  # fmt: skip


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


def test_few_labels_are_scaled_by_all_features_however_few_are_read_at_a_time(blobs, monkeypatch):
    train, test = blobs
    train.x[:7] += 100
    options = {"classes": 5, "per_class": 3, "draws": 4, "c": 0.1, "seed": 0}
    whole = linear.few_labels(train, test, **options)
    monkeypatch.setattr(linear, "FIT_BYTES", 7 * train.x[0].nbytes)
    assert linear.few_labels(train, test, **options) == whole


def test_an_image_that_ends_an_evaluation_is_not_taken_for_too_few_labels():
    def unreadable(source):
        raise ArgumentError("on_bad_image", "error", "x.jpg is unreadable")

    keys = SimpleNamespace(labels_per_class=3)
    task = SimpleNamespace(
        check_labels=lambda: None, config=SimpleNamespace(linear=keys, seed=0),
        train=None, test=None, features=unreadable,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match=r"x\.jpg is unreadable"):
        linear.run(task)
