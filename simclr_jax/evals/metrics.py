"""The metrics of published results, each a function of the scores and the labels of a test."""

from collections.abc import Callable

import chex
import numpy as np

from simclr_jax.evals.scores import accuracies, check_finite

# A function of scores (n, C) and labels to a number in [0, 1].
Metric = Callable[[np.ndarray, np.ndarray], float]


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of images whose label has the highest score.

    Args:
      scores: The scores (n, C) of the classes; higher is likelier.
      labels: The labels (n,), ints in [0, C); images with -1, without a label, are left out.

    Raises:
      DivergedError: A score is not a number.
    """
    return accuracies(scores, labels)["top1"]


def mean_per_class(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over classes of the fraction of a class's images whose label scores highest.

    Classes without images are left out.

    >>> mean_per_class(np.eye(3)[[0, 0, 0, 1]], np.array([0, 0, 1, 1]))
    0.75

    Args:
      scores: The scores (n, C) of the classes; higher is likelier.
      labels: The labels (n,), ints in [0, C); images with -1, without a label, are left out.

    Raises:
      DivergedError: A score is not a number.
    """
    chex.assert_rank([scores, labels], [2, 1])
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    check_finite(scores)
    hits = labels[scores.argmax(axis=1) == labels]
    right, total = (np.bincount(each, minlength=scores.shape[1]) for each in (hits, labels))
    return mean_of_classes(class_accuracies(right, total))


def class_accuracies(right: np.ndarray, total: np.ndarray) -> list[float | None]:
    """The fraction of each class's images that is right; None for a class without images.

    >>> class_accuracies(np.array([1, 0]), np.array([2, 0]))
    [0.5, None]

    Args:
      right: The number of each class's images that are right (C,), int.
      total: The number of each class's images (C,), int.
    """
    return [int(r) / int(n) if n else None for r, n in zip(right, total, strict=True)]


def mean_of_classes(accuracies: list[float | None]) -> float:
    """The mean of the accuracies of classes, without those that have no images.

    >>> mean_of_classes([0.5, None, 1.0])
    0.75
    """
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return sum(known) / len(known)


def map11(scores: np.ndarray, labels: np.ndarray) -> float:
    """The 11-point mean average precision of PASCAL VOC 2007, over classes with a positive image.

    >>> map11(np.array([[0.9], [0.8], [0.7]]), np.int8([[1], [0], [1]])).__round__(3)
    0.848

    Args:
      scores: The scores (n, C) of the classes; higher is likelier.
      labels: Whether an image has an object of a class (n, C): 1 yes, 0 no, -1 not counted, as
        where all of its objects are difficult. Such an image is left out of that class.

    Raises:
      DivergedError: A score is not a number.

    Reference: Everingham et al. 2010, The PASCAL Visual Object Classes (VOC) Challenge, equations 1
    and 2.
    """
    chex.assert_rank([scores, labels], 2)
    chex.assert_equal_shape([scores, labels])
    check_finite(scores)
    classes = np.flatnonzero((labels == 1).any(axis=0))
    return float(np.mean([_precision11(scores[:, c], labels[:, c]) for c in classes]))


def _precision11(scores: np.ndarray, labels: np.ndarray) -> float:
    """The 11-point average precision of one class, from scores (n,) and labels (n,).

    It is the mean, over the recalls 0, 0.1, …, 1, of the highest precision at that recall or a
    higher one. Images of the same score are found at the same threshold, so that their order
    decides nothing.
    """
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(labels[order] == 1)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # Of each threshold.
    found, precision = found[last], found[last] / (last + 1)
    # In whole numbers, since 0.1 and its multiples are no floats.
    return float(np.mean([precision[10 * found >= k * found[-1]].max() for k in range(11)]))


METRICS: dict[str, Metric] = {"top1": top1, "mean_per_class": mean_per_class, "map11": map11}


def scored(scores: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
    """The entries of a result: a metric by its name, and with one label an image the accuracies.

    Args:
      scores: The scores (n, C) of the classes.
      labels: The labels, (n,) or (n, C), as the metric takes them.
      metric: The name of one of `METRICS`.

    Raises:
      DivergedError: A score is not a number.
    """
    found = accuracies(scores, labels) if labels.ndim == 1 else {}
    return found if metric in found else {**found, metric: METRICS[metric](scores, labels)}
