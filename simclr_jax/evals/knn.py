"""Weighted k-nearest-neighbour classification of frozen features, which trains nothing.

Reference: Wu et al. 2018, section 3.4 (arXiv 1805.01978).
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.config.rules import above, some, values_of, whole
from simclr_jax.evals.features import Features
from simclr_jax.evals.passes import Block, Rows
from simclr_jax.evals.scores import Tally
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task
from simclr_jax.losses import l2_normalize, neighbours

QUERY_BYTES = 2**30  # The bytes of the test images that are compared in one pass.

# The rules of the config section "knn".
RULES = {"knn.k": some(whole(1)), "knn.temperature": above(0)}


def run(task: Task) -> dict[str, Any]:
    """Evaluates a network by its images' neighbours; returns its part of result.json.

    With several numbers of neighbours, "by_k" has the accuracies of each, and "top1" and "top5" are
    those of the first one: none is chosen by the images that it is tested on.
    """
    task.check_labels()
    keys, test, train = task.config.knn, task.features(task.test), task.features(task.train)
    task.check_examples(train.labels, test.labels)
    tallies = {k: Tally() for k in values_of(keys.k)}
    known = int((train.labels >= 0).sum())
    if doubt := in_doubt(tallies, known):
        processes.say(doubt)
    start = 0
    for block in votes(
        train,
        test.x,
        classes=task.train.num_classes,
        ks=tuple(tallies),
        temperature=keys.temperature,
        mesh=meshes.make(),
    ):
        for tally, scores in zip(tallies.values(), block, strict=True):
            tally.add(scores, test.labels[start : start + len(scores)])
        start += len(block[0])
    by_k = {str(k): tally.accuracies() for k, tally in tallies.items()}
    first = next(iter(by_k))
    return {
        **task.tested(test),
        **by_k[first],
        "k": int(first),
        "voters": known,
        "temperature": keys.temperature,
        **({"by_k": by_k} if isinstance(keys.k, tuple) else {}),
    }


def in_doubt(ks: Iterable[int], voters: int) -> str | None:
    """Why the accuracies of some numbers of neighbours say little; None where none is too large.

    >>> in_doubt([200, 20], 180).partition(", so ")[0]
    'config.knn.k=200 is more than half of the 180 training images that vote'
    >>> in_doubt([200, 20], 1000)

    Args:
      ks: The numbers of neighbours.
      voters: The number of training images that have a vote.
    """
    wrong = [k for k in ks if neighbours.too_many(k, voters)]
    if not wrong or voters < 2:  # Of one image there is no other number.
        return None
    listed = ",".join(map(str, wrong))
    return (
        f"config.knn.k={listed} is more than half of the {voters} training images that vote, so "
        "that frequent classes win by their number and the accuracy says little; "
        f"config.knn.k={neighbours.few(voters)}, a tenth of them, says more"
    )


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and what they are of, as text.

    >>> found = {"top1": 0.5, "top5": 1.0, "num_examples": 8, "dataset": "digits", "k": 200}
    >>> in_words(found | {"by_k": {"200": {"top1": 0.5}, "1": {"top1": 0.25}}})
    'top-1 50.0%, top-5 100.0% on 8 images of digits, k 200 (top-1 25.0% with k 1)'
    """
    others = {k: found for k, found in result.get("by_k", {}).items() if int(k) != result["k"]}
    listed = ", ".join(f"{found['top1']:.1%} with k {k}" for k, found in others.items())
    line = f"{scores_in_words(result)}, k {result['k']}"
    return f"{line} (top-1 {listed})" if listed else line


def votes(
    train: Features, x: np.ndarray, *, classes: int, ks: Sequence[int], temperature: float,
    mesh: Mesh, test_rows: int = 512, held_bytes: int | None = None,
) -> Iterator[list[np.ndarray]]:  # fmt: skip
    """Yields, for a block of test images at a time, the votes (n, C) for their classes for each k.

    The k training images with the highest cosine similarity to a test image vote for their classes
    with the weights exp((similarity - highest similarity) / temperature). Of equally similar ones
    the first are taken. The training images are split over the devices, each of which finds the
    nearest of its own.

    >>> train = Features(np.float32([[1, 0], [0, 1]]), np.int32([0, 1]))
    >>> options = dict(classes=2, ks=[1], temperature=0.1, mesh=meshes.make())
    >>> list(votes(train, np.float32([[0, 2]]), **options))
    [[array([[0., 1.]], dtype=float32)]]

    Args:
      train: The training images' features (m, F) and labels; one with -1 is no neighbour.
      x: The test images' features (N, F).
      classes: The number C of classes.
      ks: The numbers of neighbours; with fewer training images, all of them vote.
      temperature: The temperature of the weights, above 0.
      mesh: The mesh of the devices.
      test_rows: The number n of test images that are compared at a time, which bounds the memory
        of their similarities. `QUERY_BYTES` of test images share a pass over the training images.
      held_bytes: See `passes.Rows`.
    """
    chex.assert_rank([train.x, train.labels, x], [2, 1, 2])
    chex.assert_equal_shape_suffix([train.x, x], 1)
    known = train.labels >= 0
    most = min(max(ks), int(known.sum()))
    rows = Rows([train], columns=test_rows, mesh=mesh, held_bytes=held_bytes)
    of_one = 4 * (x.shape[1] + 2 * most)  # The bytes of a test image with its neighbours.
    passed = test_rows * max(1, QUERY_BYTES // (of_one * test_rows))
    for first in range(0, len(x), passed):
        starts = range(first, min(first + passed, len(x)), test_rows)
        queries = [_unit(x[start : start + test_rows], mesh=mesh) for start in starts]
        none = [np.zeros((len(query), 0), np.float32) for query in queries]
        nearest: list[Any] = [(each, each.astype(np.int32)) for each in none]
        # Each block goes to the devices once, however many images are compared with it.
        for block in rows.blocks(known):
            nearest = [
                _nearer(query, *so_far, block, k=most, mesh=mesh)
                for query, so_far in zip(queries, nearest, strict=True)
            ]
            jax.block_until_ready(nearest)  # Blocks that wait would fill the memory.
        for similarity, labels in nearest:
            weight = neighbours.weights(similarity, temperature)
            yield [np.asarray(_vote(weight[:, :k], labels[:, :k], classes=classes)) for k in ks]


@partial(jax.jit, static_argnames="mesh")
def _unit(x: jax.Array, *, mesh: Mesh) -> jax.Array:
    """The features (n, F) at unit length, on every device."""
    return meshes.replicate(l2_normalize(x), mesh=mesh)


@partial(jax.jit, static_argnames=("k", "mesh"))
def _nearer(
    query: jax.Array, similarity: jax.Array, labels: jax.Array, block: Block, *, k: int, mesh: Mesh
) -> tuple[jax.Array, jax.Array]:
    """The k best of the neighbours so far (n, k') and of a block of training images.

    Each device sends the nearest of its own images alone.
    """
    rows, columns = meshes.sharded(mesh).spec, PartitionSpec(None, *meshes.sharded(mesh).spec)
    here = jax.shard_map(
        partial(_nearest, k=k),
        mesh=mesh,
        in_specs=(PartitionSpec(), rows),
        out_specs=(columns, columns),
    )
    found = (meshes.replicate(each, mesh=mesh) for each in here(query, block))
    joined = zip((similarity, labels), found, strict=True)
    return neighbours.nearest(*(jnp.concatenate(both, axis=1) for both in joined), k=k)


def _nearest(query: jax.Array, block: Block, *, k: int) -> tuple[jax.Array, jax.Array]:
    """The k best neighbours (n, k) among the training images of one device."""
    new = jnp.matmul(query, l2_normalize(block["x"]).T, precision=jax.lax.Precision.HIGHEST)
    new = jnp.where(block["weight"][None] > 0, new, -jnp.inf)
    return neighbours.nearest(new, jnp.broadcast_to(block["label"], new.shape), k=k)


_vote = jax.jit(neighbours.votes, static_argnames="classes")
