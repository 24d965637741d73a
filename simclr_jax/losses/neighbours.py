"""The nearest neighbours of embeddings, and their weighted votes for the classes of images.

Reference: Wu et al. 2018, section 3.4 (arXiv 1805.01978).
"""

import jax
import jax.numpy as jnp

TEMPERATURE = 0.1  # The usual temperature of the votes.


def nearest(similarity: jax.Array, labels: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """The k highest similarities of (n, m) with their labels; of equal ones the first.

    >>> similarity = jnp.array([[0.5, 0.9, 0.5]])
    >>> [found.tolist() for found in nearest(similarity, jnp.array([[4, 5, 6]]), k=2)]
    [[[0.8999999761581421, 0.5]], [[5, 4]]]

    Args:
      similarity: The similarities (n, m) of n images to m neighbours, float.
      labels: The labels (n, m) of the neighbours, int.
      k: The number of neighbours to take; with fewer, all are taken.

    Returns:
      The similarities and the labels (n, min(k, m)), the nearest first.
    """
    found, index = jax.lax.top_k(similarity, min(k, similarity.shape[1]))
    return found, jnp.take_along_axis(labels, index, axis=1)


def too_many(k: int, voters: int) -> bool:
    """Whether k neighbours are more than half of the voters, so that their votes tell little.

    The more of all voters take part, the more the most frequent class wins, whatever is near.

    >>> too_many(200, 400), too_many(200, 399)
    (False, True)

    Args:
      k: The number of neighbours.
      voters: The number of images that have a vote.
    """
    return 2 * k > voters


def few(voters: int) -> int:
    """A number of neighbours for few voters: a tenth of them, but at least 1.

    >>> few(180), few(7)
    (18, 1)
    """
    return max(1, voters // 10)


def weights(similarity: jax.Array, temperature: jax.typing.ArrayLike) -> jax.Array:
    """The weights (n, k) of neighbours, exp((similarity - highest similarity) / temperature).

    Weights relative to the nearest neighbour's rank alike, and do not overflow.
    """
    return jnp.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)


def votes(weight: jax.Array, labels: jax.Array, *, classes: int) -> jax.Array:
    """The sum (n, C) of the weights (n, k) of the neighbours of each class.

    Args:
      weight: The weights (n, k), float.
      labels: The labels (n, k), int from 0 to C - 1.
      classes: The number C of classes.
    """
    rows = jnp.arange(len(labels))[:, None]
    return jnp.zeros((len(labels), classes), weight.dtype).at[rows, labels].add(weight)
