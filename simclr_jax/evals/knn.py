"""Weighted nearest neighbours in feature space: an evaluation with nothing to train.

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
from simclr_jax.evals.task import Task
from simclr_jax.losses import l2_normalize

RULES = {"knn.k": at_least(1), "knn.temperature": above(0)}


def run(task: Task) -> dict[str, Any]:
    """The accuracy of the nearest neighbours' votes."""
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
        **task.tested,
        **accuracies(votes, test.labels),
        "k": keys.k,
        "temperature": keys.temperature,
    }


def scores(
    train: Features, test: Features, *, classes: int, k: int, temperature: float,
    test_rows: int = 512, train_rows: int = 65536,
) -> np.ndarray:  # fmt: skip
    """Votes (n, C) for the class of each test image.

    Each of its k most similar training images, by cosine, votes for its own class with the weight
    exp((similarity - the best neighbour's) / temperature).

    Args:
      train, test: features; train with labels.
      classes: C.
      k: neighbours; all of the training images where there are fewer.
      temperature: > 0.
      test_rows, train_rows: compared at a time, which bounds the memory.
    """
    chex.assert_rank([train.x, train.labels, test.x], [2, 1, 2])
    chex.assert_equal_shape_suffix([train.x, test.x], 1)
    k = min(k, len(train.x))
    votes = []
    for first in range(0, len(test.x), test_rows):
        query = _unit(test.x[first : first + test_rows])
        similarity = jnp.zeros((len(query), 0))
        labels = jnp.zeros((len(query), 0), jnp.int32)
        for start in range(0, len(train.x), train_rows):
            keys = train.x[start : start + train_rows], train.labels[start : start + train_rows]
            similarity, labels = _nearest(query, similarity, labels, *keys, k=k)
        # Relative to each query's best neighbour: the same ranking, and no overflow.
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
    """The k best of those found so far (n, k') and of a chunk of training images."""
    new = jnp.matmul(query, l2_normalize(x).T, precision=jax.lax.Precision.HIGHEST)
    similarity = jnp.concatenate([similarity, new], axis=1)
    labels = jnp.concatenate([labels, jnp.broadcast_to(y, new.shape)], axis=1)
    best, index = jax.lax.top_k(similarity, min(k, similarity.shape[1]))
    return best, jnp.take_along_axis(labels, index, axis=1)


@partial(jax.jit, static_argnames="classes")
def _vote(weight: jax.Array, labels: jax.Array, *, classes: int) -> jax.Array:
    rows = jnp.arange(len(labels))[:, None]
    return jnp.zeros((len(labels), classes)).at[rows, labels].add(weight)
