"""Scores of predictions, the same for every protocol."""

from typing import Any

import chex
import numpy as np


def accuracies(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How often the label is among the classes with the highest scores.

    Args:
      scores: A score (n, C) of every class; higher is likelier.
      labels: The classes (n,), ints.

    Returns:
      {"top1", "top5"}, fractions.
    """
    chex.assert_rank([scores, labels], [2, 1])
    chex.assert_equal_shape_prefix([scores, labels], 1)
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits = ranked == labels[:, None]
    return {"top1": float(hits[:, 0].mean()), "top5": float(hits.any(axis=1).mean())}


def mean_and_deviation(results: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each score over several results, and as NAME_std its standard deviation."""
    table = {key: np.array([result[key] for result in results]) for key in results[0]}
    means = {key: float(values.mean()) for key, values in table.items()}
    return means | {f"{key}_std": float(values.std()) for key, values in table.items()}


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result, in a line for people."""
    spread = f" ± {result['top1_std']:.1%}" if "top1_std" in result else ""
    return (
        f"top-1 {result['top1']:.1%}{spread}, top-5 {result['top5']:.1%} "
        f"on {result['num_examples']} images of {result['dataset']}"
    )
