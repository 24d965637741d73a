"""Weighted k-nearest-neighbour classification of frozen features, which trains nothing.

Reference: Wu et al. 2018, section 3.4 (arXiv 1805.01978).
"""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.config.rules import above, at_least
from simclr_jax.evals.features import Features
from simclr_jax.evals.scores import accuracies
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task
from simclr_jax.losses import l2_normalize

# The rules of the config section "knn".
RULES = {"knn.k": at_least(1), "knn.temperature": above(0)}


def run(task: Task) -> dict[str, Any]:
    """Evaluates a network by its images' neighbours; returns its part of result.json."""
    task.check_labels()
    keys, test = task.config.knn, task.features(task.test)
    votes = scores(
        task.features(task.train),
        test,
        classes=task.train.num_classes,
        k=keys.k,
        temperature=keys.temperature,
    )
    return {
        **task.tested(test),
        **accuracies(votes, test.labels),
        "k": keys.k,
        "temperature": keys.temperature,
    }


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and what they are of, as text."""
    return f"{scores_in_words(result)}, k {result['k']}"


def scores(
    train: Features, test: Features, *, classes: int, k: int, temperature: float,
    test_rows: int = 512, train_rows: int = 65536,
) -> np.ndarray:  # fmt: skip
    """The votes (n, C) for the class of each test image.

    The k training images with the highest cosine similarity to a test image vote for their classes
    with the weights exp((similarity - highest similarity) / temperature).

    >>> train = Features(np.float32([[1, 0], [0, 1]]), np.int32([0, 1]))
    >>> test = Features(np.float32([[0, 2]]), np.int32([1]))
    >>> scores(train, test, classes=2, k=1, temperature=0.1)
    array([[0., 1.]], dtype=float32)

    Args:
      train: The training images' features (m, F) and labels; one with -1 is no neighbour.
      test: The test images' features (n, F).
      classes: The number C of classes.
      k: The number of neighbours; with fewer training images, all of them.
      temperature: The temperature of the weights, above 0.
      test_rows: The number of test images that are compared at a time, which bounds the memory.
      train_rows: The number of training images that are compared at a time.
    """
    chex.assert_rank([train.x, train.labels, test.x], [2, 1, 2])
    chex.assert_equal_shape_suffix([train.x, test.x], 1)
    known = train.labels >= 0
    if not known.all():
        train = Features(train.x[known], train.labels[known])
    k = min(k, len(train.x))
    votes = []
    for first in range(0, len(test.x), test_rows):
        query = _unit(test.x[first : first + test_rows])
        similarity = jnp.zeros((len(query), 0))
        labels = jnp.zeros((len(query), 0), jnp.int32)
        for start in range(0, len(train.x), train_rows):
            keys = train.x[start : start + train_rows], train.labels[start : start + train_rows]
            similarity, labels = _nearest(query, similarity, labels, *keys, k=k)
        # Weights relative to the best neighbour's rank the classes alike, and do not overflow.
        weight = jnp.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
        votes.append(np.asarray(_vote(weight, labels, classes=classes)))
    return np.concatenate(votes)


_unit = jax.jit(l2_normalize)


@partial(jax.jit, static_argnames="k")
def _nearest(
    query: jax.Array,
    similarity: jax.Array,
    labels: jax.Array,
    x: jax.Array,
    y: jax.Array,
    *,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    """The k best of the neighbours so far (n, k') and of more training images x (m, F)."""
    new = jnp.matmul(query, l2_normalize(x).T, precision=jax.lax.Precision.HIGHEST)
    similarity = jnp.concatenate([similarity, new], axis=1)
    labels = jnp.concatenate([labels, jnp.broadcast_to(y, new.shape)], axis=1)
    best, index = jax.lax.top_k(similarity, min(k, similarity.shape[1]))
    return best, jnp.take_along_axis(labels, index, axis=1)


@partial(jax.jit, static_argnames="classes")
def _vote(weight: jax.Array, labels: jax.Array, *, classes: int) -> jax.Array:
    """The sum (n, C) of the weights (n, k) of the neighbours of each class."""
    rows = jnp.arange(len(labels))[:, None]
    return jnp.zeros((len(labels), classes)).at[rows, labels].add(weight)
