"""Logistic regression on frozen features, its L2 strength chosen on images for validation.

Reference: Chen et al. 2020, appendix B.8 (arXiv 2002.05709).
"""

from typing import Any

import numpy as np

from simclr_jax import mesh as meshes
from simclr_jax.config.rules import RUN, Rule, at_least
from simclr_jax.evals import validation
from simclr_jax.evals.passes import Rows
from simclr_jax.evals.regression import Regressions
from simclr_jax.evals.scores import Tally
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task

# The rules of the config section "logistic".
RULES = {
    "logistic.l2_range": Rule(
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] < np.inf,
        "two numbers, 0 < smallest <= largest",
    ),
    "logistic.l2_count": at_least(1),
    "logistic.held_out": RUN["data.held_out"],
}
TEST_ROWS = 8192  # The number of test images that are classified at a time.


def run(task: Task) -> dict[str, Any]:
    """Evaluates a network by logistic regression; returns its part of result.json.

    Each strength is fitted to the training images. The one that is right most often on the images
    for validation, and of equal ones the one with the smallest cross-entropy there, is fitted to
    both, and tested once.

    Raises:
      UserError: The images have no labels to learn, or a class of the test has no example.
      DivergedError: A loss is not finite.
    """
    task.check_labels()
    keys, classes = task.config.logistic, task.train.num_classes
    data = validation.choose(task, key="logistic.held_out", held_out=keys.held_out)
    test = task.features(task.test)
    task.check_examples(data.labels, test.labels)

    smallest, largest = keys.l2_range
    strengths = np.geomspace(smallest, largest, keys.l2_count)
    rows = Rows(data.parts, columns=len(strengths) * classes, mesh=meshes.make())
    regressions = Regressions(rows, classes)
    tried = regressions.fit(data.train, strengths)
    right, loss = regressions.right(data.validation, tried)
    accuracy = right.sum(axis=1) / data.validation.sum()
    best = int(np.lexsort((loss, -accuracy))[0])
    final = regressions.fit(data.train | data.validation, strengths[[best]])

    tally = Tally()
    for start in range(0, len(test.x), TEST_ROWS):
        scores = test.x[start : start + TEST_ROWS] @ final.kernel[0] + final.bias[0]
        tally.add(scores, test.labels[start : start + TEST_ROWS])
    return {
        **task.tested(test),
        **tally.accuracies(),
        "l2": float(strengths[best]),
        "l2_range": [float(strengths[0]), float(strengths[-1])],
        "l2_count": len(strengths),
        "validation": data.name,
        "validation_top1": float(accuracy[best]),
        "tried": [
            {"l2": float(l2), "top1": float(top1)}
            for l2, top1 in zip(strengths, accuracy, strict=True)
        ],
        "unconverged": int((~tried.converged).sum() + (~final.converged).sum()),
        "passes": tried.passes + final.passes,
    }


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and how the strength was chosen, as text.

    >>> found = {"top1": 0.5, "top5": 1.0, "num_examples": 8, "dataset": "digits", "l2": 0.01}
    >>> found |= {"l2_range": [0.01, 1.0], "l2_count": 3, "validation": "9 of val"}
    >>> in_words({**found, "unconverged": 0}).partition(", L2 ")[2]
    '0.01, the smallest of 3, by 9 of val'
    """
    smallest, largest = result["l2_range"]
    place = {largest: "the largest ", smallest: "the smallest "}.get(result["l2"], "")
    line = f"{scores_in_words(result)}, L2 {result['l2']:.3g}"
    if result["l2_count"] > 1:
        line += f", {place}of {result['l2_count']}, by {result['validation']}"
    if result["unconverged"]:
        line += f", {result['unconverged']} fits not converged"
    return line
