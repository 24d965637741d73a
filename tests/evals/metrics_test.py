"""Metrics against hand-worked cases and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, recall_score

from simclr_jax.errors import DivergedError
from simclr_jax.evals.metrics import METRICS, map11, mean_per_class, top1


def test_mean_per_class_is_the_mean_recall_of_classes_with_images(rng):
    scores, labels = rng.normal(size=(200, 7)), rng.choice([0, 1, 2, 4, 5], 200)
    expected = recall_score(
        labels, scores.argmax(axis=1), average="macro", labels=np.unique(labels)
    )
    assert mean_per_class(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert expected != pytest.approx(top1(scores, labels), abs=1e-3)


def test_images_without_a_label_are_left_out(rng):
    scores, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    more = np.append(labels, [-1] * 50)
    for metric in (top1, mean_per_class):
        assert metric(np.concatenate([scores, -scores]), more) == metric(scores, labels)


# Recall 1/3 at precision 1, then 2/3 at 2/3 (two images of one score), then 1 at 3/5: the recalls
# 0 to 0.3, 0.4 to 0.6, and 0.7 to 1.
TIED = np.array([0.8, 0.9, 0.8, 0.6, 0.7]), np.array([0, 1, 1, 1, 0])
OF_TIED = (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11


def test_average_precision_of_equal_scores_does_not_depend_on_their_order():
    scores, labels = TIED
    for order in (slice(None), slice(None, None, -1)):
        found = map11(scores[order, None], labels[order, None])
        assert found == pytest.approx(OF_TIED, abs=1e-12)


def test_a_precision_that_rises_later_counts_for_the_recalls_before():
    """Precision 0, 1/2, 2/3, 3/4: the highest from each recall on is 3/4."""
    assert map11(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[0], [1], [1], [1]])) == 0.75


def test_a_class_without_a_positive_is_left_out_and_so_is_an_image_of_difficult_objects():
    scores, labels = TIED
    no_positive = np.array([0, 0, -1, -1, 0])
    scores = np.stack([scores, scores], axis=1)
    labels = np.stack([labels, no_positive], axis=1)
    assert map11(scores, labels) == pytest.approx(OF_TIED, abs=1e-12)
    labels[2, 0] = -1  # The other image of its score is then wrong alone: recalls 1/2 and 1.
    assert map11(scores, labels) == pytest.approx((6 * 1 + 5 * 2 / 4) / 11, abs=1e-12)


def test_average_precision_is_that_of_the_curve_of_scikit_learn(rng):
    labels = rng.choice([-1, 0, 1], (60, 10), p=[0.1, 0.7, 0.2]).astype(np.int8)
    scores = (labels + 2 * rng.normal(size=labels.shape)).round(1)
    expected = []
    for ours, truth in zip(scores.T, labels.T, strict=True):
        curve = precision_recall_curve(truth[truth >= 0], ours[truth >= 0])
        precision, recall = curve[0][:-1], curve[1][:-1]  # The last one has no threshold.
        points = [precision[recall >= r - 1e-9].max() for r in np.linspace(0, 1, 11)]
        expected.append(np.mean(points))
    assert map11(scores, labels) == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_scores_that_are_no_numbers_have_no_metric(name):
    labels = np.int8([[1, 0]]) if name == "map11" else np.array([0])
    with pytest.raises(DivergedError, match="the scores of 1 of 1 images are not finite"):
        METRICS[name](np.array([[np.nan, 1.0]]), labels)
