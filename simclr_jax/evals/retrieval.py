"""Retrieval by frozen features: whether the images nearest to an image are of its class.

Each labelled image of the evaluation split is a query. The database, the labelled training images
or the other images of the query's own split, is ranked by cosine similarity to it; an image is
relevant if it has the query's class. With A(r) the number of images that are at least as similar to
the query as the relevant image r, H(r) the number of relevant ones among them, and R the number of
all relevant ones::

    average precision   1/R · Σ_r H(r) / A(r), as scikit-learn's average_precision_score has it
    recall@k            1 if the nearest relevant image r is among the k nearest images, that is if
                        A(r) - H(r) < k, else 0

Both are averaged over the queries. Images that are equally similar are not told apart: the order of
the dataset decides nothing.

Shapes: n queries of a block, m images of a block of the database, R relevant images at most, F.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax.config.rules import Rule, one_of, some, values_of, whole
from simclr_jax.errors import UserError
from simclr_jax.evals import passes
from simclr_jax.evals.features import Features
from simclr_jax.evals.scores import subject
from simclr_jax.evals.task import Task
from simclr_jax.losses import l2_normalize

# The rules of the config section "retrieval".
RULES: dict[str, Rule] = {
    "retrieval.k": some(whole(1)),
    "retrieval.against": one_of("train", "rest"),
}
QUERIES = 512  # The largest number of queries of a block, on all devices together.
ROWS = 2**15  # The number of images of a block of the database.
NOTHING = -(2**31)  # The similarity, as an int32, where there is no image to compare with.
BLOCK_BYTES = 2**27  # The largest number of bytes of the similarities of a block's relevant images.


def run(task: Task) -> dict[str, Any]:
    """Ranks images by their similarity to each query; returns the part of result.json.

    Raises:
      UserError: The images have no labels, none that has one can be read, or no query has a
        relevant image.
    """
    keys, rest = task.config.retrieval, task.config.retrieval.against == "rest"
    task.check_labels("eval" if rest else "both")
    test = task.features(task.test)
    if not (test.labels >= 0).any():
        raise UserError(
            f"config.data.eval_split={task.run_config.data.eval_split!r}: none of its images with "
            "a label can be read"
        )
    database = test if rest else task.features(task.train)
    if not rest:
        task.check_examples(database.labels, test.labels)
    ks = values_of(keys.k)
    precision, wrong = evaluate(test, database, rest=rest)
    if not len(precision):
        raise UserError(
            "config.retrieval.against='rest': no image of the evaluation split has another one of "
            "its class; compare with 'train'"
        )
    found = task.tested(test)
    return {
        **found,
        "mean_average_precision": float(precision.mean()),
        **{f"recall_at_{k}": float((wrong < k).mean()) for k in ks},
        "against": keys.against,
        "num_database": int((database.labels >= 0).sum()),
        "without_relevant": found["num_examples"] - len(precision),
    }


def in_words(result: dict[str, Any]) -> str:
    """The scores of a result and what they are of, as text.

    >>> found = {"mean_average_precision": 0.5, "recall_at_1": 0.75, "recall_at_10": 1.0}
    >>> found |= {"num_examples": 8, "dataset": "digits", "against": "train", "num_database": 20}
    >>> in_words(found)
    'mAP 50.0%, recall@1 75.0%, recall@10 100.0% on 8 images of digits against 20 of train'
    """
    recall = "".join(
        f", recall@{key.removeprefix('recall_at_')} {value:.1%}"
        for key, value in result.items()
        if key.startswith("recall_at_")
    )
    left_out = f", {result['unreadable']} unreadable left out" if result.get("unreadable") else ""
    if result.get("unlabelled"):
        left_out += f", {result['unlabelled']} without labels left out"
    if result.get("without_relevant"):
        left_out += f", {result['without_relevant']} alone in their class left out"
    of = {"train": f"{result['num_database']} of train", "rest": "the others"}
    return (
        f"mAP {result['mean_average_precision']:.1%}{recall} on {subject(result, left_out)} "
        f"against {of[result['against']]}"
    )


def evaluate(
    queries: Features, database: Features, *, rest: bool, rows: int = ROWS, block: int = QUERIES,
    held_bytes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The average precision of each query, and the number of wrong images before a right one.

    The database is passed twice for each block of queries, which are split over the devices. It is
    copied to them once where each can hold all of it, and a block at a time otherwise, so that the
    memory does not grow with the number of images.

    Args:
      queries: The features (N, F) of the queries and their labels; those with -1 are left out.
      database: The same of the images that are ranked.
      rest: Whether the database has the queries themselves, in the same order: each is compared
        with the others.
      rows: The number of images of a block of the database.
      block: The largest number of queries of a block.
      held_bytes: The bytes of the database that a device can hold; None: a half of its free memory.

    Returns:
      The average precision (n,) float64, and the number (n,) of images of other classes that are
      at least as similar as the nearest relevant one, of the queries with relevant images.
    """
    known, asked = (np.flatnonzero(each.labels >= 0) for each in (database, queries))
    if not len(known) or not len(asked):
        return np.zeros(0), np.zeros(0, np.int32)
    classes = int(max(database.labels.max(), queries.labels.max())) + 1
    relevant = Relevant(database.labels[known], classes)
    mesh = meshes.make()
    ranking = _Database(database.x, known, rows, mesh, held_bytes)
    share = max(1, min(block // mesh.size, BLOCK_BYTES // (4 * relevant.most)))
    precisions, wrongs = [], []
    for first in range(0, len(asked), share * mesh.size):
        chosen = asked[first : first + share * mesh.size]
        ranked = _ranked(queries, chosen, ranking, relevant, mesh, share, rest)
        precision, wrong, count = (scored[: len(chosen)] for scored in ranked)
        precisions.append(precision[count > 0].astype(np.float64))
        wrongs.append(wrong[count > 0])
    return np.concatenate(precisions), np.concatenate(wrongs)


class Relevant:
    """The images of each class.

    Args:
      labels: The classes (m,) of the images, at least one.
      classes: The number of classes, whether there are images of each or not.

    Attributes:
      most: The largest number of images of a class.
    """

    def __init__(self, labels: np.ndarray, classes: int):
        self._order = np.argsort(labels, kind="stable").astype(np.int32)
        self._starts = np.searchsorted(labels[self._order], np.arange(classes + 1))
        self.most = int(np.diff(self._starts).max())

    def of(self, labels: np.ndarray) -> np.ndarray:
        """The numbers (n, most) int32 of the images of each class (n,); -1 where there are fewer.

        >>> Relevant(np.array([1, 0, 1]), classes=3).of(np.array([0, 1, 2]))
        array([[ 1, -1],
               [ 0,  2],
               [-1, -1]], dtype=int32)
        """
        found = np.full((len(labels), self.most), -1, np.int32)
        for row, label in enumerate(labels):
            own = self._order[self._starts[label] : self._starts[label + 1]]
            found[row, : len(own)] = own
        return found


class _Database:
    """The images that are ranked, a block at a time, each of which every device has.

    Args:
      x: The features (N, F) of a split.
      known: The images (m,) of it that are ranked.
      rows: The number of images of a block.
      mesh: The mesh of the devices.
      held_bytes: See `evaluate`.
    """

    def __init__(
        self, x: np.ndarray, known: np.ndarray, rows: int, mesh: Mesh, held_bytes: int | None
    ):
        self._x, self._known, self._rows, self._mesh = x, known, rows, mesh
        most = passes.on_each(mesh) if held_bytes is None else held_bytes
        self._fits = 4 * len(known) * x.shape[1] <= most
        self._held: dict[int, tuple[jax.Array, jax.Array]] = {}

    def blocks(self) -> Iterator[tuple[int, jax.Array, jax.Array]]:
        """Yields each block's first row, its features (m, F) and the places (m,) of its images."""
        for start in range(0, len(self._known), self._rows):
            block = self._held.get(start) or self._put(self._known[start : start + self._rows])
            if self._fits:
                self._held[start] = block
            yield start, *block

    def _put(self, places: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """A block on every device."""
        everywhere = partial(jax.make_array_from_process_local_data, meshes.replicated(self._mesh))
        return everywhere(self._x[places].astype(np.float32)), everywhere(places.astype(np.int32))


def _ranked(
    queries: Features, chosen: np.ndarray, ranking: "_Database", relevant: Relevant, mesh: Mesh,
    share: int, rest: bool,
) -> Sequence[np.ndarray]:  # fmt: skip
    """What `_score` says of the queries `chosen`, padded to `share` for each device."""
    padded = np.resize(chosen, share * mesh.size)[meshes.local_rows(mesh, share * mesh.size)]
    numbers = relevant.of(queries.labels[padded])
    query = meshes.put(
        {
            "x": queries.x[padded].astype(np.float32),
            "place": padded.astype(np.int32) if rest else np.full(len(padded), -1, np.int32),
            "relevant": numbers,
            "nearest": np.full(numbers.shape, NOTHING, np.int32),
            "above": np.zeros(numbers.shape, np.int32),
        },
        mesh,
    )

    def blocks() -> Iterator[tuple[int, jax.Array]]:
        for start, x, places in ranking.blocks():
            yield start, _similarity(query["x"], query["place"], x, places)

    nearest, above = query["nearest"], query["above"]  # Blocks that wait would fill the memory.
    for start, similarity in blocks():
        nearest = _collect(nearest, similarity, query["relevant"], start).block_until_ready()
    nearest = _falling(nearest)
    for _, similarity in blocks():
        above = _count(above, similarity, nearest).block_until_ready()
    return [meshes.on_host(each) for each in _score(nearest, above)]


@jax.jit
def _similarity(query: jax.Array, place: jax.Array, x: jax.Array, places: jax.Array) -> jax.Array:
    """The cosine similarities (n, m) of queries and images; `NOTHING` for an image and itself.

    They are given as int32 in the same order, which are sorted several times faster. Both passes
    over the database use this one program, so an image has the same similarity in both.
    """
    found = jnp.matmul(l2_normalize(query), l2_normalize(x).T, precision=jax.lax.Precision.HIGHEST)
    bits = jax.lax.bitcast_convert_type(jnp.where(found == 0, 0.0, found), jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # Of a negative float all but the sign.
    return jnp.where(place[:, None] == places[None, :], NOTHING, ordered)


@jax.jit
def _collect(
    nearest: jax.Array, similarity: jax.Array, relevant: jax.Array, start: int
) -> jax.Array:
    """The similarities (n, R) of the relevant images, with those of the block that begins here."""
    column = relevant - start
    here = (column >= 0) & (column < similarity.shape[1])
    found = jnp.take_along_axis(similarity, jnp.where(here, column, 0), axis=1)
    return jnp.where(here, found, nearest)


@jax.jit
def _falling(nearest: jax.Array) -> jax.Array:
    """The similarities (n, R), the largest first."""
    return jnp.sort(nearest, axis=1)[:, ::-1]


@jax.jit
def _count(above: jax.Array, similarity: jax.Array, nearest: jax.Array) -> jax.Array:
    """The numbers (n, R) of images at least as similar as each relevant one, with more images."""
    return above + _at_least(jnp.sort(similarity, axis=1), nearest)


@jax.vmap
def _at_least(rising: jax.Array, thresholds: jax.Array) -> jax.Array:
    """The number of values (m,) in rising order that are at least each threshold (R,)."""
    return len(rising) - jnp.searchsorted(rising, thresholds, side="left").astype(jnp.int32)


@jax.jit
def _score(nearest: jax.Array, above: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The average precision, the wrong images before a right one and the relevant ones, (n,) each.

    Args:
      nearest: The similarities (n, R) of the relevant images, falling; `NOTHING` where there are
        fewer.
      above: The numbers (n, R) of images at least as similar as each of them.
    """
    valid = nearest > NOTHING
    right = _at_least(nearest[:, ::-1], nearest)
    relevant = valid.sum(axis=1)
    precision = jnp.where(valid, right / jnp.maximum(above, 1), 0.0).sum(axis=1)
    return precision / jnp.maximum(relevant, 1), above[:, 0] - right[:, 0], relevant
