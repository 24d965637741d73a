"""Logistic regressions against scikit-learn's, of the same strengths."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from simclr_jax.errors import DivergedError, UserError
from simclr_jax.evals import passes, regression
from simclr_jax.evals.features import Features
from simclr_jax.evals.passes import Rows
from support.sources import split

PAPER = np.geomspace(1e-6, 1e5, 45)


def objective(x, labels, l2, kernel, bias):
    """J of `regression` in float64; kernel (F, C), bias (C,)."""
    logits = x.astype(np.float64) @ kernel.astype(np.float64) + bias
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]
    return losses.mean() + l2 / (2 * len(x)) * np.sum(kernel.astype(np.float64) ** 2)


def least(x, labels, l2, **options):
    """The smallest J, by scikit-learn in float64."""
    two = labels.max() == 1  # Of two classes it fits the difference, whose penalty is half of ours.
    c = (2 if two else 1) / l2
    found = LogisticRegression(C=c, tol=1e-6, max_iter=5000, **options)
    found.fit(x.astype(np.float64), labels)
    kernel, bias = found.coef_.T, found.intercept_
    if two:
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.array([-bias[0], bias[0]]) / 2
    return objective(x, labels, l2, kernel, bias)


def gaps(features, strengths, found, **options):
    """How far each J is from the smallest one."""
    return [
        objective(*features, l2, kernel, bias) - least(*features, l2, **options)
        for l2, kernel, bias in zip(strengths, found.kernel, found.bias, strict=True)
    ]


def fit(features, strengths, mesh, *, weights=None, **options):
    classes = int(features.labels.max()) + 1
    rows = Rows([features], columns=len(strengths) * classes, mesh=mesh, **options)
    weights = np.ones(len(features.x)) if weights is None else weights
    return regression.Regressions(rows, classes).fit(weights, np.asarray(strengths))


def test_every_strength_reaches_the_minimum_of_the_rows_that_count(blobs, mesh8, rng):
    """Rows of weight 0 and rows without a label do not."""
    (x, labels), strengths = blobs[0], [1e-4, 0.1, 10.0, 1e5]
    noise = (9 * rng.normal(size=x.shape)).astype(np.float32)
    features = Features(
        np.concatenate([noise, x, noise]), np.concatenate([labels, labels, 0 * labels - 1])
    )
    weights = np.arange(3 * len(x)) >= len(x)
    found = fit(features, strengths, mesh8, weights=weights)
    assert found.converged.all()
    np.testing.assert_allclose(gaps(blobs[0], strengths, found), 0, atol=2e-4)


@pytest.mark.slow
def test_features_that_are_read_anew_in_each_pass_reach_the_same(blobs, mesh1, monkeypatch):
    monkeypatch.setattr(passes, "ROWS_BYTES", 70 * 4 * 12)  # 70 rows at a time.
    monkeypatch.setattr(regression, "STATE_BYTES", 1)  # One strength at a time.
    found = fit(blobs[0], [0.1, 10.0], mesh1, held_bytes=0)
    np.testing.assert_allclose(gaps(blobs[0], [0.1, 10.0], found), 0, atol=2e-4)


@pytest.mark.slow
def test_two_classes_of_features_too_wide_for_a_covariance(blobs, mesh1, monkeypatch):
    monkeypatch.setattr(regression, "ROTATED", 8)
    two = Features(*(each[blobs[0].labels < 2] for each in blobs[0]))
    found = fit(two, [10.0], mesh1)
    np.testing.assert_allclose(gaps(two, [10.0], found), 0, atol=2e-4)


def test_losses_that_are_not_finite_are_named(blobs, mesh1):
    x = blobs[0].x.copy()
    x[3] = np.inf
    with pytest.raises(DivergedError, match="the logistic regression of L2 10 has no finite loss"):
        fit(Features(x, blobs[0].labels), [10.0], mesh1)


@pytest.mark.slow
def test_all_values_of_the_paper_reach_the_minimum(mesh8):
    x, labels = datasets.load_digits(return_X_y=True)
    features = Features((x[:600] / 16).astype(np.float32), labels[:600].astype(np.int32))
    found = fit(features, PAPER, mesh8)
    assert found.converged.all()
    np.testing.assert_allclose(gaps(features, PAPER, found), 0, atol=1e-3)


def binary(x, labels, l2, kernel, bias):
    """The sum of the cross-entropies of one class, and its penalty, in float64; kernel (F,)."""
    logits = (x.astype(np.float64) @ kernel + bias) * np.where(labels == 1, 1, -1)
    return np.logaddexp(0, -logits).sum() + l2 / 2 * np.sum(kernel.astype(np.float64) ** 2)


def binary_gaps(features, strengths, found):
    """How far the loss of each class is from scikit-learn's, a counted row."""
    for k, l2 in enumerate(strengths):
        for c in range(features.labels.shape[1]):
            counted = features.labels[:, c] >= 0
            x, labels = features.x[counted], features.labels[counted, c]
            theirs = LogisticRegression(C=1 / l2, tol=1e-6, max_iter=5000)
            theirs.fit(x.astype(np.float64), labels)
            least = binary(x, labels, l2, theirs.coef_[0], theirs.intercept_[0])
            ours = binary(x, labels, l2, found.kernel[k][:, c], found.bias[k][c])
            yield (ours - least) / counted.sum()


def several(rng):
    """300 rows of 12 features and 4 classes, of which any number is there or not counted."""
    x = rng.normal(size=(300, 12)).astype(np.float32)
    there = x @ rng.normal(size=(12, 4)) + rng.normal(size=(300, 4)) > [0, 1, 2, 3]
    uncounted = rng.random((300, 4)) < 0.1
    return Features(x, np.where(uncounted, -1, there).astype(np.int8))


def test_each_of_several_labels_has_the_regression_of_scikit_learn(mesh8, rng):
    """Images without any label that counts have no part in it."""
    features, strengths = several(rng), [1e-3, 1.0, 1e3]
    features.labels[:7] = -1
    rows = Rows([features], columns=len(strengths) * 4, mesh=mesh8)
    regressions = regression.Regressions(rows, 4)
    found = regressions.fit(np.ones(300), np.asarray(strengths))
    assert found.converged.all()
    np.testing.assert_allclose(list(binary_gaps(features, strengths, found)), 0, atol=1e-4)

    right, loss = regressions.right(np.ones(300), found)
    scores = features.x @ found.kernel + found.bias[:, None]
    counted, there = features.labels >= 0, features.labels == 1
    np.testing.assert_array_equal(right, (((scores > 0) == there) & counted).sum(axis=1))
    losses = np.logaddexp(0, np.where(there, -1, 1) * scores) * counted
    np.testing.assert_allclose(loss, losses.sum(axis=(1, 2)) / 293, rtol=1e-5)


def photographs(count):
    """CIFAR-10's first images, or noise whose colours tell the class; pixels 0 to 1 and labels."""
    try:
        cifar = split("cifar10", cache_bytes=0)
    except UserError:
        rng, labels = np.random.default_rng(0), np.arange(count) % 10
        return rng.uniform(0, 0.5, (count, 3072)) + 0.05 * labels[:, None], labels
    images, labels = cifar.load(range(count))
    return np.stack([tf.io.decode_image(each).numpy().ravel() / 255 for each in images]), labels


@pytest.mark.slow
def test_all_values_of_the_paper_reach_the_minimum_on_features_of_photographs(mesh8, rng):
    """Random features of CIFAR-10, of very different variances; scikit-learn by Newton's method."""
    pixels, labels = photographs(600)
    weights = rng.normal(size=(3072, 30)) / 32 * np.geomspace(1, 0.03, 30)
    features = Features(np.maximum(pixels @ weights, 0).astype(np.float32), labels.astype(np.int32))
    found = fit(features, PAPER, mesh8)
    assert found.converged.all()
    found = gaps(features, PAPER, found, solver="newton-cholesky")
    np.testing.assert_allclose(found, 0, atol=1e-3)
