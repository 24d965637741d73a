"""The nearest features by cosine similarity, and groups of nearly equal ones, by plain products.

Features are read a block at a time, so mapped ones need not fit in memory. Every pair is compared,
so what is found is exact.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ROWS = 2**13  # The number of features that are compared at a time.
QUERIES = 2**10  # The number of features that these are compared with at a time.
ROUNDING = (
    1e-6  # How far below a threshold a cosine similarity still counts, for float32 rounds it.
)
_LEAST = 1e-12  # The smallest length that features are divided by.


class Nearest(NamedTuple):
    """The nearest features of each query, the most similar first.

    Attributes:
      rows: Their rows, (Q, k) int64; -1 where there are fewer.
      similarity: Their cosine similarities, (Q, k) float32; -inf where there are fewer.
    """

    rows: np.ndarray
    similarity: np.ndarray


def nearest(
    queries: np.ndarray, x: np.ndarray, k: int, *, but: np.ndarray | None = None
) -> Nearest:
    """The k nearest features of each query, by cosine similarity.

    Of equally similar ones the first come first. Features that are not finite are no neighbours.

    >>> x = np.float32([[1, 0], [3, 3], [0, 2], [np.nan, 0]])
    >>> nearest(np.float32([[2, 0]]), x, 2).rows.tolist()
    [[0, 1]]
    >>> nearest(x[:2], x, 3, but=np.arange(2)).rows.tolist()
    [[1, 2, -1], [0, 2, -1]]

    Args:
      queries: The features (Q, F) of the queries, finite.
      x: The features (N, F) that are searched.
      k: The number of neighbours; with fewer features it is all of them.
      but: The row of `x` that is no neighbour of each query, (Q,) int: the query itself.
    """
    k = min(k, len(x) - (but is not None))
    queries = np.asarray(queries, np.float32)
    unit = queries / _lengths(queries)[0][:, None]
    rows = np.full((len(unit), k), -1)
    similarity = np.full((len(unit), k), -np.inf, np.float32)
    for start in range(0, len(x), ROWS):
        block = np.asarray(x[start : start + ROWS], np.float32)
        length, finite = _lengths(block)
        for first in range(0, len(unit), QUERIES):
            part = slice(first, first + QUERIES)
            with np.errstate(over="ignore", invalid="ignore"):
                found = unit[part] @ block.T / length
            found[:, ~finite] = -np.inf
            if but is not None:
                own = but[part] - start
                here = np.flatnonzero((own >= 0) & (own < len(block)))
                found[here, own[here]] = -np.inf
            near = _highest(found, k)
            both = np.concatenate([similarity[part], np.take_along_axis(found, near, 1)], axis=1)
            order = np.argsort(-both, axis=1, kind="stable")[:, :k]
            places = np.concatenate([rows[part], start + near], axis=1)
            rows[part] = np.take_along_axis(places, order, 1)
            similarity[part] = np.take_along_axis(both, order, 1)
    return Nearest(np.where(similarity > -np.inf, rows, -1), similarity)


def to_rows(query: np.ndarray, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The cosine similarities (n,) of a feature (F,) to the rows (n,) of others (N, F)."""
    query = np.asarray(query, np.float32)
    unit = query / _lengths(query[None])[0]
    parts = (np.asarray(x[rows[k : k + ROWS]], np.float32) for k in range(0, len(rows), ROWS))
    return np.concatenate([part @ unit / _lengths(part)[0] for part in parts])


def groups(
    x: np.ndarray, threshold: float, *, compared: Callable[[int], None] = lambda rows: None
) -> list[np.ndarray]:
    """The groups of features whose pairs are similar, or linked by a chain of similar pairs.

    They are the connected components of the graph of all pairs with a cosine similarity of at least
    the threshold. The memory does not grow with the number of pairs; the time grows with the square
    of the number of features. Features that are not finite are in no group.

    >>> x = np.float32([[1, 0], [0, 1], [2, 0.1], [0, 3], [1, 0.1], [1, 1]])
    >>> [group.tolist() for group in groups(x, 0.99)]
    [[0, 2, 4], [1, 3]]

    Args:
      x: The features (N, F).
      threshold: The lowest similarity of a pair, to `ROUNDING`.
      compared: A function that is told how many features more were compared with all others.

    Returns:
      The rows of each group of two at least, in order; the largest group first.
    """
    joined = _Joined(len(x))
    for first in range(0, len(x), QUERIES):
        one = np.asarray(x[first : first + QUERIES], np.float32)
        least, known = _lengths(one)
        least = least[:, None] * np.float32(threshold - ROUNDING)
        for start in range(first, len(x), ROWS):  # A pair is looked at once, or twice.
            other = np.asarray(x[start : start + ROWS], np.float32)
            length, finite = _lengths(other)
            with np.errstate(over="ignore", invalid="ignore"):
                alike = one @ other.T >= least * length
            alike &= known[:, None] & finite
            rows, columns = first + np.arange(len(one)), start + np.arange(len(other))
            # Where many are alike, most of their pairs are in one group already.
            alike &= joined.roots(rows)[:, None] != joined.roots(columns)
            pairs = np.nonzero(alike)
            joined.join(rows[pairs[0]], columns[pairs[1]])
        compared(len(one))
    roots = joined.roots(np.arange(len(x)))
    order = np.argsort(roots, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    return sorted((group for group in found if len(group) > 1), key=len, reverse=True)


class _Joined:
    """Numbers that are joined to groups, each with its smallest one as the root.

    Args:
      count: The number N of numbers, from 0 on.
    """

    def __init__(self, count: int):
        self._above = np.arange(count)  # A number of the same group that is smaller, or itself.

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Joins the groups of pairs of numbers, (P,) each."""
        while (apart := self.roots(one) != self.roots(other)).any():
            one, other = self.roots(one[apart]), self.roots(other[apart])
            np.minimum.at(self._above, np.maximum(one, other), np.minimum(one, other))

    def roots(self, numbers: np.ndarray) -> np.ndarray:
        """The roots of the groups of numbers (P,)."""
        found = self._above[numbers]
        while (found != (above := self._above[found])).any():
            self._above[numbers] = found = above  # The next time the way is shorter.
        return found


def _lengths(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths (n,) of features (n, F), at least `_LEAST`, and whether each is finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt(np.einsum("nf,nf->n", x, x))
    return np.maximum(length, np.float32(_LEAST)), np.isfinite(length)


def _highest(found: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k highest values of each row of (n, m), in order; all of fewer columns.

    Of equal values the first are taken.
    """
    if found.shape[1] <= k:
        return np.broadcast_to(np.arange(found.shape[1]), found.shape)
    order = np.argpartition(-found, (k - 1, k), axis=1)
    last, next_one = (np.take_along_axis(found, order[:, [n]], 1)[:, 0] for n in (k - 1, k))
    tied = last == next_one  # The partition takes any of them.
    order[tied] = np.argsort(-found[tied], axis=1, kind="stable")
    return np.sort(order[:, :k], axis=1)
