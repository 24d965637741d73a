"""What features tell of images by their nearest neighbours among themselves, and by a map."""

import numpy as np

from simclr_jax.evals import similarity
from simclr_jax.evals.scores import check_finite
from simclr_jax.evals.similarity import Nearest


def nearest(x: np.ndarray, k: int) -> Nearest:
    """The k nearest other images of each image, by cosine similarity; of equal ones the first.

    >>> nearest(np.float32([[1, 0], [1, 0.1], [0, 1]]), 1).rows.tolist()
    [[1], [0], [1]]

    Args:
      x: The features (N, F) of the images, N at least 2.
      k: The number of neighbours; with fewer other images it is all of them.
    """
    return similarity.nearest(x, x, k, but=np.arange(len(x)))


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Features (N, F) at unit length; those that are zero stay so."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def votes(
    found: Nearest, labels: np.ndarray, *, classes: int, k: int, temperature: float
) -> np.ndarray:
    """The shares (N, C) of the votes of each image's neighbours for the classes.

    As in the evaluation by nearest neighbours, a neighbour votes with the weight
    exp(similarity / temperature). Neighbours without a label have no vote. Of an image without a
    neighbour that has one, all shares are 0.

    Reference: Wu et al. 2018, section 3.4 (arXiv 1805.01978).

    Args:
      found: The neighbours.
      labels: The labels (N,); -1: none.
      classes: The number C of classes.
      k: The number of neighbours that vote.
      temperature: The temperature, above 0.
    """
    near, alike = found.rows[:, :k], found.similarity[:, :k]
    weight = np.exp((alike - alike.max(axis=1, keepdims=True)) / temperature)
    of = labels[near]
    weight = np.where(of >= 0, weight, 0.0)
    shares = np.zeros((len(labels), classes))
    np.add.at(shares, (np.arange(len(labels))[:, None], np.maximum(of, 0)), weight)
    check_finite(shares)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)


def confusion(labels: np.ndarray, taken_for: np.ndarray, classes: int) -> np.ndarray:
    """The number (C, C) of images of a class (the row) that were taken for one (the column).

    >>> confusion(np.array([0, 0, 1, -1]), np.array([0, 1, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]

    Args:
      labels: The labels (N,); those with -1 are not counted.
      taken_for: The predicted classes (N,).
      classes: The number C of classes.
    """
    counts = np.zeros((classes, classes), int)
    known = labels >= 0
    np.add.at(counts, (labels[known], taken_for[known]), 1)
    return counts


def by_pca(x: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components (N, 2) of features at unit length.

    Returns:
      The places, and the share of the variance that they have.
    """
    unit = unit_rows(x).astype(np.float64)
    left, scale, right = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    places = np.zeros((len(x), 2))
    count = min(2, len(scale))
    # The sign of a component means nothing; one is chosen, so that the map is the same again.
    top = right[:count][np.arange(count), np.abs(right[:count]).argmax(axis=1)]
    places[:, :count] = left[:, :count] * scale[:count] * np.where(top < 0, -1.0, 1.0)
    total = float((scale**2).sum())
    return places, float((scale[:2] ** 2).sum()) / total if total > 0 else 0.0
