"""Logistic regression on frozen features, its L2 strength chosen on images for validation.

Reference: Chen et al. 2020, appendix B.8 (arXiv 2002.05709).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from simclr_jax import mesh as meshes
from simclr_jax.config.rules import RANGE, RUN, at_least
from simclr_jax.evals import validation
from simclr_jax.evals.features import Features
from simclr_jax.evals.metrics import METRICS, class_accuracies, mean_of_classes, scored
from simclr_jax.evals.passes import Rows
from simclr_jax.evals.regression import Fit, Regressions
from simclr_jax.evals.scores import Tally
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import note

# The rules of the config section "logistic".
RULES = {
    "logistic.l2_range": RANGE,
    "logistic.l2_count": at_least(1),
    "logistic.held_out": RUN["data.held_out"],
}
TEST_ROWS = 8192  # The number of test images that are classified at a time.


def run(task: Task) -> dict[str, Any]:
    """Evaluates a network by logistic regression; returns its part of result.json.

    With several labels an image, it is the 11-point mean average precision of PASCAL VOC 2007 by
    which the strength is chosen, and the result.

    Raises:
      UserError: The images have no labels to learn, or a class of the test has no example.
      DivergedError: A loss is not finite.
    """
    task.check_labels()
    return evaluated(task, "logistic", "map11" if task.train.multilabel else "top1")


def evaluated(task: Task, section: str, metric: str) -> dict[str, Any]:
    """The entries of the result of a logistic regression, whose strength a metric chooses.

    Args:
      task: The task, whose splits have labels of the same classes.
      section: The config section with l2_range, l2_count and held_out.
      metric: The name of one of `metrics.METRICS`.

    Raises:
      UserError: There is no image to choose by, or a class of the test has no example.
      DivergedError: A loss is not finite.
    """
    keys = task.config[section]
    data = validation.choose(task, key=f"{section}.held_out", held_out=keys.held_out)
    test = task.features(task.test)
    task.check_examples(data.labels, test.labels)
    fit, chosen = fitted(data, task.train.num_classes, strengths(keys), metric)
    if metric == "top1":  # It needs the scores of some images at a time alone.
        tally = Tally()
        for scores, labels in tested(fit, test):
            tally.add(scores, labels)
        found = tally.accuracies()
    else:
        found = scored(np.concatenate([x for x, _ in tested(fit, test)]), test.labels, metric)
    return {**task.tested(test), **found, **chosen}


def strengths(keys: ConfigDict) -> np.ndarray:
    """The strengths (K,) of L2 that the keys l2_range and l2_count of a section name."""
    smallest, largest = keys.l2_range
    return np.geomspace(smallest, largest, keys.l2_count)


def fitted(
    data: validation.Chosen, classes: int, l2: np.ndarray, metric: str
) -> tuple[Fit, dict[str, Any]]:
    """The regression of the best of several strengths.

    Each strength is fitted to the training images. The best one on the images for validation, and
    of equal ones that with the smallest cross-entropy there, is fitted to both.

    Args:
      data: The images.
      classes: The number C of classes.
      l2: The strengths (K,), above 0.
      metric: What tells the better one, the name of one of `metrics.METRICS`.

    Returns:
      The regression, and the entries of the result that say how it was chosen.

    Raises:
      DivergedError: A loss is not finite.
    """
    rows = Rows(data.parts, columns=len(l2) * classes, mesh=meshes.make())
    regressions = Regressions(rows, classes)
    note(f"fitting regressions of {len(l2)} strengths")
    tried = regressions.fit(data.train, l2)
    right, loss = regressions.right(data.validation, tried)
    values = _values(data, right, tried, metric)
    best = int(np.lexsort((loss, -values))[0])
    final = regressions.fit(data.train | data.validation, l2[[best]])
    return final, {
        "l2": float(l2[best]),
        "l2_range": [float(l2[0]), float(l2[-1])],
        "l2_count": len(l2),
        "validation": data.name,
        f"validation_{metric}": float(values[best]),
        "tried": [
            {"l2": float(strength), metric: float(value)}
            for strength, value in zip(l2, values, strict=True)
        ],
        "unconverged": int((~tried.converged).sum() + (~final.converged).sum()),
        "passes": tried.passes + final.passes,
    }


def _values(data: validation.Chosen, right: np.ndarray, tried: Fit, metric: str) -> np.ndarray:
    """The metric of each strength on the images for validation, (K,).

    Args:
      data: The images.
      right: How many of these images of each class are classified right (K, C).
      tried: The regressions of all strengths.
      metric: The name of the metric.
    """
    if metric == "top1":
        return right.sum(axis=1) / data.validation.sum()
    if metric == "mean_per_class":
        total = np.bincount(data.labels[data.validation], minlength=right.shape[1])
        return np.array([mean_of_classes(class_accuracies(each, total)) for each in right])
    parts = list(data.to_choose_by())
    x, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    fits = zip(tried.kernel, tried.bias, strict=True)
    return np.array([METRICS[metric](x @ kernel + bias, labels) for kernel, bias in fits])


def tested(fit: Fit, test: Features) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the scores (n, C) of a single regression and the labels of images, some at a time."""
    for start in range(0, len(test.x), TEST_ROWS):
        rows = slice(start, start + TEST_ROWS)
        yield test.x[rows] @ fit.kernel[0] + fit.bias[0], test.labels[rows]


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and how the strength was chosen, as text.

    >>> found = {"top1": 0.5, "top5": 1.0, "num_examples": 8, "dataset": "digits", "l2": 0.01}
    >>> found |= {"l2_range": [0.01, 1.0], "l2_count": 3, "validation": "9 of val"}
    >>> in_words({**found, "unconverged": 0}).partition(", L2 ")[2]
    '0.01, the smallest of 3, by 9 of val'
    """
    return f"{scores_in_words(result)}, {chosen_in_words(result)}"


def chosen_in_words(result: dict[str, Any]) -> str:
    """How the strength of a result was chosen, as text."""
    smallest, largest = result["l2_range"]
    place = {largest: "the largest ", smallest: "the smallest "}.get(result["l2"], "")
    line = f"L2 {result['l2']:.3g}"
    if result["l2_count"] > 1:
        line += f", {place}of {result['l2_count']}, by {result['validation']}"
    if result["unconverged"]:
        line += f", {result['unconverged']} fits not converged"
    return line
