"""The geometry of frozen features, which needs no labels: how close, how spread, how many.

With f(x) the features of an image x, scaled to unit length:

    alignment       E ‖f(x) - f(x')‖², over two views x and x' of an image, augmented as the run
                    augments them; 0 is the best
    uniformity      log E exp(-2 ‖f(x) - f(y)‖²), over all pairs of different images x and y in
                    their evaluation views; lower is more uniform, 0 is a collapse

With X the features (N, F) as they are, and the entropy H(p) = -Σ p_k log p_k:

    effective_rank  exp H(λ / Σλ), for the eigenvalues λ of the covariance of X
    rankme          exp H(σ / Σσ + 1e-7), for the singular values σ of X, which is not centred

References: Wang & Isola 2020, section 4.1, with their α = 2 and t = 2 (arXiv 2005.10242). Roy &
Vetterli 2007, "The effective rank: a measure of effective dimensionality". Garrido et al. 2023,
equation 1 (arXiv 2210.02885).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.config import inputs
from simclr_jax.config.rules import Rule, one_of
from simclr_jax.errors import UserError
from simclr_jax.evals.scores import subject
from simclr_jax.evals.task import Task
from simclr_jax.losses import l2_normalize
from simclr_jax.run.progress import note

# The rules of the config section "geometry".
RULES: dict[str, Rule] = {"geometry.split": one_of("eval", "train")}

PAIR_ROWS = 4096  # The number of images that are compared with as many others at a time.
MOMENT_ROWS = 8192  # The number of rows whose second moment is computed at a time.
EPSILON = 1e-7  # RankMe's addition to each share.


def run(task: Task) -> dict[str, Any]:
    """Measures the features of a split; returns its part of result.json.

    Raises:
      UserError: There are fewer than two images.
    """
    (source,) = task.open(task.config.geometry.split).values()
    features = task.features(source)
    x = features.x
    if len(x) < 2:
        raise UserError(
            f"config.data.name={task.run_config.data.name!r}: geometry needs two images at least, "
            f"and {source.split!r} has {len(x)} that can be read"
        )
    views = inputs.views(task.run_config)
    views = replace(
        views, ops=(2 * views.ops)[:2], colour_on="host", blur_on="host"
    )  # Of one view, another such.
    augmented = task.extractor.views(source, views, seed=task.config.seed)
    covariance, moment = moments(x)
    note(f"comparing two views of each of {len(source):,} images")
    return {
        "split": source.split,
        "num_examples": len(x),
        "unreadable": len(source) - len(x),
        "dim": x.shape[1],
        "alignment": alignment((pair[:, 0], pair[:, 1]) for pair in augmented),
        "uniformity": uniformity(x),
        "effective_rank": rank(eigenvalues(covariance)),
        "rankme": rank(np.sqrt(eigenvalues(moment))[-len(x) :], EPSILON),
    }


def in_words(result: dict[str, Any]) -> str:
    """The measures of a result and what they are of, as text.

    >>> found = {"alignment": 0.25, "uniformity": -1.5, "effective_rank": 3.0, "rankme": 4.25}
    >>> in_words(found | {"dim": 9, "num_examples": 8, "dataset": "digits"})
    'alignment 0.250, uniformity -1.500, effective rank 3.0, RankMe 4.2 of 9 on 8 images of digits'
    """
    left_out = f", {result['unreadable']} unreadable left out" if result.get("unreadable") else ""
    return (
        f"alignment {result['alignment']:.3f}, uniformity {result['uniformity']:.3f}, effective "
        f"rank {result['effective_rank']:.1f}, RankMe {result['rankme']:.1f} of {result['dim']} on "
        f"{subject(result, left_out)}"
    )


def alignment(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean squared distance of the unit features of two views.

    >>> alignment([(np.float32([[1, 0], [2, 0]]), np.float32([[3, 0], [0, 5]]))])
    1.0

    Args:
      pairs: The features (n, F) of one view and of the other, batch by batch.
    """
    total = count = 0.0
    for a, b in pairs:
        total += float(np.asarray(_distance(a, b)).astype(np.float64).sum())
        count += len(a)
    return total / count


@jax.jit
def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """The squared distances (n,) of the unit features of two views."""
    return jnp.sum((l2_normalize(a) - l2_normalize(b)) ** 2, axis=1)


def uniformity(x: np.ndarray, *, rows: int = PAIR_ROWS) -> float:
    """The logarithm of the mean Gaussian potential exp(-2 d²) of all pairs of unit features.

    >>> round(uniformity(np.float32([[1, 0], [-2, 0], [3, 0]])), 4)  # d² is 0 once, and 4 twice.
    -1.0979

    Args:
      x: The features (N, F) of two images at least.
      rows: The number of images that are compared with as many others at a time.
    """
    total, starts = 0.0, range(0, len(x), rows)
    for first in starts:
        a = x[first : first + rows].astype(np.float32)
        for second in starts[: first // rows + 1]:
            b = x[second : second + rows].astype(np.float32)
            total += float(np.asarray(_potential(a, b, first, second)).astype(np.float64).sum())
    return float(np.log(total / (len(x) * (len(x) - 1) / 2)))


@jax.jit
def _potential(a: jax.Array, b: jax.Array, first: int, second: int) -> jax.Array:
    """The sums (n,) of exp(-2 d²) over the pairs of images of two blocks, each pair once.

    Sums of a row at a time stay small enough for float32.

    Args:
      a: The features (n, F) of one block, whose images have the numbers from `first` on.
      b: The features (m, F) of the other one, from `second` on.
      first: The number of the first image of a.
      second: The number of the first image of b.
    """
    product = jnp.matmul(l2_normalize(a), l2_normalize(b).T, precision=jax.lax.Precision.HIGHEST)
    earlier = (first + jnp.arange(len(a)))[:, None] > (second + jnp.arange(len(b)))[None, :]
    return jnp.sum(jnp.where(earlier, jnp.exp(-2.0 * (2.0 - 2.0 * product)), 0.0), axis=1)


def moments(x: np.ndarray, *, rows: int = MOMENT_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """The covariance and the second moment (F, F) float64 of features, a block at a time.

    Both are sums over the images, in float64, so that blocks give what all rows at once would.

    Args:
      x: The features (N, F).
      rows: The number of rows of a block.
    """
    mean = sum(block.sum(axis=0) for block in _blocks(x, rows)) / len(x)
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for block in _blocks(x, rows):
        block -= mean
        covariance += block.T @ block
    covariance /= len(x)
    return covariance, covariance + np.outer(mean, mean)


def _blocks(x: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Yields copies of the rows of an array in float64, a block at a time."""
    for start in range(0, len(x), rows):
        yield x[start : start + rows].astype(np.float64)


def eigenvalues(symmetric: np.ndarray) -> np.ndarray:
    """The eigenvalues (F,) of a matrix (F, F) without negative ones, rising."""
    return np.maximum(np.linalg.eigvalsh(symmetric), 0.0)


def rank(values: np.ndarray, epsilon: float = 0.0) -> float:
    """The exponential of the entropy of the values' shares of their sum; 0 if all are 0.

    >>> rank(np.array([2.0, 2.0, 0.0])), rank(np.zeros(3))
    (2.0, 0.0)

    Args:
      values: The values (F,), none of them negative.
      epsilon: What is added to each share.
    """
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values / total + epsilon
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))
