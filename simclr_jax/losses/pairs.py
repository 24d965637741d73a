"""Losses of each anchor with one positive and the negatives of one view, a block at a time.

Each row of either view is an anchor. Its candidates are the N rows of the other view, of which that
of the same image is the positive and the N - 1 others are the negatives. A block's similarities are
computed again in the backward pass instead of being stored.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import Precision

from simclr_jax.losses.blocks import Gather, by_blocks, count_blocks
from simclr_jax.losses.measures import comparable, contrastive_metrics, contrastive_scores

# A function of the anchors' similarities (V, B, N) with all candidates and whether a candidate is
# the positive (V, B, N), to the anchors' losses (V, B).
OfAnchors = Callable[[jax.Array, jax.Array], jax.Array]


def of_anchors(
    losses: OfAnchors,
    z_a: jax.Array,
    z_b: jax.Array,
    *,
    temperature: float,
    normalize: bool,
    block_rows: int | None,
    gather: Gather,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean over images of the losses of both views, and the metrics.

    Args:
      losses: The function that gives the losses of anchors from their similarities.
      z_a: The projections (N, D) of one view, in any float dtype.
      z_b: The projections (N, D) of the other view.
      temperature: The temperature τ that divides the similarities in the metrics, above 0.
      normalize: Whether similarities are cosines; otherwise they are inner products.
      block_rows: The largest number of rows of similarities, of 2N, in memory at a time; None: all.
      gather: Gathers an array of the rows of all N images, so that each device has a full copy.

    Returns:
      The loss and the metrics, as `losses.nt_xent` returns them.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The temperature is not positive, or `block_rows` is less than 2.
    """
    z_VND = jnp.stack(comparable(z_a, z_b, temperature=temperature, normalize=normalize))
    candidates_VND = gather(z_VND)[::-1]
    images = z_VND.shape[1]

    @jax.checkpoint
    def rows(z_VBD: jax.Array, image_B: jax.Array) -> tuple[jax.Array, ...]:
        # HIGHEST: a TPU's default precision rounds to bfloat16, too coarse at a low temperature.
        similarity_VBN = jnp.einsum(
            "vbd,vnd->vbn", z_VBD, candidates_VND, precision=Precision.HIGHEST
        )
        own_BN = image_B[:, None] == jnp.arange(images)[None, :]
        own_VBN = jnp.broadcast_to(own_BN[None], similarity_VBN.shape)
        logits_BN = jax.lax.stop_gradient(similarity_VBN[0]) / temperature
        scores = (score_B[None] for score_B in contrastive_scores(logits_BN, image_B))
        return losses(similarity_VBN, own_VBN), *scores

    count = 1 if block_rows is None else count_blocks(images, block_rows)
    losses_VN, correct_1N, entropy_1N = by_blocks(rows, count, z_VND)
    loss = jnp.mean(jnp.sum(losses_VN, axis=0))
    return loss, contrastive_metrics(correct_1N, entropy_1N)


def positive_of(x_VBN: jax.Array, own_VBN: jax.Array) -> jax.Array:
    """The value (V, B, 1) of each anchor's positive, from those of all candidates."""
    return jnp.sum(jnp.where(own_VBN, x_VBN, 0), axis=-1, keepdims=True)


def all_negatives(similarity_VBN: jax.Array, own_VBN: jax.Array) -> jax.Array:
    """The weight 1 / (N - 1) for each negative, and 0 for the positive.

    >>> all_negatives(jnp.zeros((1, 1, 3)), jnp.array([[[True, False, False]]])).tolist()
    [[[0.0, 0.5, 0.5]]]

    Args:
      similarity_VBN: The similarities (V, B, N) of anchors and candidates, float.
      own_VBN: Whether a candidate is the positive (V, B, N).
    """
    negatives = max(1, similarity_VBN.shape[-1] - 1)
    return jnp.where(own_VBN, 0, 1 / negatives).astype(similarity_VBN.dtype)


def semi_hard(similarity_VBN: jax.Array, own_VBN: jax.Array) -> jax.Array:
    """The weight 1 for each anchor's semi-hard negative, and 0 for all other candidates.

    It is the most similar of the negatives that are less similar than the positive. Where there is
    none, it is the least similar of all negatives, so that every anchor has one. The paper does not
    say what it does there; TensorFlow's `triplet_semihard_loss` does this. Of equals the first is
    taken. No gradient flows through the choice.

    >>> similarity = jnp.array([[[0.5, 0.9, 0.4, 0.1], [0.2, 0.9, 0.8, 0.7]]])
    >>> own = jnp.array([[[True, False, False, False]] * 2])
    >>> semi_hard(similarity, own).tolist()  # In the second row all are closer than the positive.
    [[[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]]

    Args:
      similarity_VBN: The similarities (V, B, N) of anchors and candidates, float.
      own_VBN: Whether a candidate is the positive (V, B, N).

    Reference: Schroff et al. 2015, section 3.2 (arXiv 1503.03832).
    """
    farther_VBN = similarity_VBN < positive_of(similarity_VBN, own_VBN)
    closest_VB = jnp.argmax(jnp.where(farther_VBN, similarity_VBN, -jnp.inf), axis=-1)
    farthest_VB = jnp.argmin(jnp.where(own_VBN, jnp.inf, similarity_VBN), axis=-1)
    chosen_VB = jnp.where(jnp.any(farther_VBN, axis=-1), closest_VB, farthest_VB)
    chosen_VBN = jnp.arange(similarity_VBN.shape[-1])[None, None] == chosen_VB[..., None]
    return (chosen_VBN & ~own_VBN).astype(similarity_VBN.dtype)


# What weighs an anchor's negatives in its loss, by its name in a config.
MINING: dict[str, OfAnchors] = {"none": all_negatives, "semi_hard": semi_hard}
