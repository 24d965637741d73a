"""The scores of predictions, which the protocols share."""

from typing import Any

import chex
import numpy as np

from simclr_jax.errors import DivergedError


def accuracies(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The fractions of images whose label is among the one or the five highest scores.

    >>> accuracies(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    {'top1': 0.5, 'top5': 1.0}

    Args:
      scores: The scores (n, C) of the classes; higher is likelier.
      labels: The labels (n,), ints in [0, C); images with -1, without a label, are left out.

    Returns:
      "top1" and "top5", in [0, 1].

    Raises:
      DivergedError: A score is not a number.
    """
    tally = Tally()
    tally.add(scores, labels)
    return tally.accuracies()


class Tally:
    """A count of right predictions, batch by batch; see `accuracies`.

    Attributes:
      count: The number of images with labels so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._hits = np.zeros(2, np.int64)  # Among the highest, and among the five highest.

    def add(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Counts a batch: scores (n, C) and labels (n,).

        Raises:
          DivergedError: A score is not a number.
        """
        chex.assert_rank([scores, labels], [2, 1])
        chex.assert_equal_shape_prefix([scores, labels], 1)
        scores, labels = scores[labels >= 0], labels[labels >= 0]
        check_finite(scores)
        hits = np.argsort(-scores, axis=1, kind="stable")[:, :5] == labels[:, None]
        self.count += len(labels)
        self._hits += hits[:, 0].sum(), hits.any(axis=1).sum()

    def accuracies(self) -> dict[str, float]:
        """The fractions "top1" and "top5" of all images with labels."""
        top1, top5 = self._hits / self.count
        return {"top1": float(top1), "top5": float(top5)}


def check_finite(scores: np.ndarray) -> None:
    """Checks that no score (n, C) is NaN, which would be ranked all the same.

    Raises:
      DivergedError: One is.
    """
    wrong = np.isnan(scores).any(axis=1).sum()
    if wrong:
        raise DivergedError(f"the scores of {wrong} of {len(scores)} images are not finite (NaN)")


def mean_and_deviation(results: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each score over several results, and as NAME_std its standard deviation.

    The standard deviation is that of the population, divided by the number of results.

    >>> mean_and_deviation([{"top1": 0.5}, {"top1": 1.0}])
    {'top1': 0.75, 'top1_std': 0.25}
    """
    table = {key: np.array([result[key] for result in results]) for key in results[0]}
    means = {key: float(values.mean()) for key, values in table.items()}
    return means | {f"{key}_std": float(values.std()) for key, values in table.items()}


def tells_top5(result: dict[str, Any]) -> bool:
    """Whether the top-5 accuracy of a result tells anything: of 5 classes or fewer it is always 1.

    Results of earlier versions do not have the number of classes.
    """
    return "top5" in result and result.get("num_classes", 6) > 5


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result, as text.

    >>> found = {"top1": 0.9, "top5": 1.0, "num_examples": 8, "unreadable": 2, "dataset": "digits"}
    >>> in_words(found)
    'top-1 90.0%, top-5 100.0% on 8 images of digits, 2 unreadable left out'
    >>> in_words({**found, "num_classes": 4})
    'top-1 90.0% on 8 images of digits, 2 unreadable left out'
    >>> in_words({**found, "unreadable": 0, "dataset": "folder", "data_dir": "/cats", "layer": "h"})
    'top-1 90.0%, top-5 100.0% on 8 images of folder /cats, layer h'
    """
    left_out = f", {result['unreadable']} unreadable left out" if result.get("unreadable") else ""
    spread = f" ± {result['top1_std']:.1%}" if "top1_std" in result else ""
    if result.get("unlabelled"):
        left_out += f", {result['unlabelled']} without labels left out"
    if "map11" in result:
        found = f"11-point mAP {result['map11']:.1%}"
    else:
        top5 = f", top-5 {result['top5']:.1%}" if tells_top5(result) else ""
        found = f"top-1 {result['top1']:.1%}{spread}{top5}"
    return f"{found} on {subject(result, left_out)}"


def subject(result: dict[str, Any], left_out: str) -> str:
    """The images that a result is of, what was left out, the layer and the choice of labels.

    >>> found = {"num_examples": 8, "dataset": "digits", "layer": "h"}
    >>> subject({**found, "train_split": "train with few labels: 20 of 99 images, 2 a class"}, "")
    '8 images of digits, layer h, train with few labels: 20 of 99 images, 2 a class'
    """
    folder = f" {result['data_dir']}" if result.get("data_dir") else ""
    layer = f", layer {result['layer']}" if "layer" in result else ""
    seen = f", {result['train_split']}" if "train_split" in result else ""
    return f"{result['num_examples']} images of {result['dataset']}{folder}{left_out}{layer}{seen}"
