"""Accuracies, their spread, and the line that people read."""

import numpy as np
import pytest

from simclr_jax.errors import DivergedError
from simclr_jax.evals import scores


def test_accuracies():
    likely = np.eye(7)[[0, 1, 2, 3]] + np.linspace(0.1, 0, 7)
    assert scores.accuracies(likely, np.array([0, 1, 6, 4])) == {"top1": 0.5, "top5": 0.75}


def test_images_without_labels_are_not_counted():
    likely = np.eye(7)[[0, 1, 2, 3]] + np.linspace(0.1, 0, 7)
    labels = np.array([0, -1, 6, -1])
    assert scores.accuracies(likely, labels) == {"top1": 0.5, "top5": 0.5}


def test_scores_that_are_no_numbers_have_no_accuracy():
    """They would be ranked in the order of the classes."""
    with pytest.raises(DivergedError, match="the scores of 1 of 2 images are not finite"):
        scores.accuracies(np.array([[1.0, 0.0], [np.nan, np.nan]]), np.array([0, 0]))


def test_equal_scores_are_ranked_in_the_order_of_the_classes():
    """A classifier that knows nothing is right about the first class alone."""
    found = scores.accuracies(np.zeros((10, 10)), np.arange(10))
    assert found == {"top1": 0.1, "top5": 0.5}


def test_several_results_are_one_mean_and_its_deviation():
    results = [{"top1": top1, "top5": 1.0} for top1 in (0.1, 0.3, 0.8)]
    assert scores.mean_and_deviation(results) == pytest.approx(
        {
            "top1": 0.4, "top1_std": np.sqrt((0.09 + 0.01 + 0.16) / 3), "top5": 1.0,
            "top5_std": 0.0,
        }
    )  # fmt: skip


def test_the_line_for_people_has_a_spread_where_there_is_one():
    result = {"top1": 0.9342, "top5": 0.998, "num_examples": 360, "dataset": "digits"}
    assert scores.in_words(result) == "top-1 93.4%, top-5 99.8% on 360 images of digits"
    assert scores.in_words(result | {"top1_std": 0.012}).startswith("top-1 93.4% ± 1.2%, top-5")


def test_the_line_for_people_has_no_top5_of_five_classes_which_is_always_100_percent():
    result = {"top1": 0.9342, "top5": 1.0, "num_examples": 360, "dataset": "digits"}
    assert scores.in_words(result | {"num_classes": 5}) == "top-1 93.4% on 360 images of digits"
    assert ", top-5 100.0% on" in scores.in_words(result | {"num_classes": 6})
    assert not scores.tells_top5({"num_classes": 10})
