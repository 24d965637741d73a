"""NT-Xent, SimCLR's contrastive loss, as a function of arrays alone.

Shapes: N images of the global batch, V = 2 views, D projection. `z_a[i]` and `z_b[i]` are two views
of image i.
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision

from simclr_jax.losses.blocks import Gather, count_blocks, identity, in_blocks
from simclr_jax.losses.measures import comparable, contrastive_metrics, contrastive_scores
from simclr_jax.losses.tiles import count_tiles


def nt_xent(
    z_a: jax.Array,
    z_b: jax.Array,
    *,
    temperature: float,
    normalize: bool = True,
    block_rows: int | None = None,
    block_columns: int | None = None,
    gather: Gather = identity,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The normalised temperature-scaled cross-entropy loss.

    In each row the positive is the other view of the same image, and the negatives are the 2N - 2
    views of other images. The loss is mean(loss_a + loss_b), **twice** the mean of Eq. 1 over 2N
    rows. The authors' code has this scale, and the published learning rates assume it. Before
    training the loss is near 2 log(2N - 1).

    Args:
      z_a: The projections (N, D) of one view, in any float dtype. The loss is computed in at least
        float32.
      z_b: The projections (N, D) of the other view.
      temperature: The temperature τ, above 0.
      normalize: Whether to compare views by cosine similarity; otherwise it is by inner product
        (Table 5).
      block_rows: The largest number of rows of logits, of 2N, in memory at a time. All blocks have
        the same number, so fewer may be used. The backward pass computes them again. Memory is
        O(N·block_rows), and O(N²) with None, which computes all rows at once.
      block_columns: The number of columns of a block of rows, of 2N, in memory at a time, as
        `tiles.count_tiles` takes it; None: all. Memory is O(block_rows·block_columns) besides the
        embeddings. Without `block_rows` it has no effect.
      gather: Gathers an array of the rows of all N images, so that each device has a full copy.

    Returns:
      The loss, a scalar, and the scalar metrics "contrastive_accuracy", the share of images whose
      view a is more similar to its own view b than to that of any other image, and
      "contrastive_entropy", the mean entropy in nats of the softmax over the N views b.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The temperature is not positive, or `block_rows` or `block_columns` is less than
        2.

    Reference: Chen et al. 2020, Eq. 1 and Algorithm 1 (arXiv 2002.05709).

    >>> z_ND = jnp.eye(4)  # Four images, with orthogonal embeddings that both views share.
    >>> loss, metrics = nt_xent(z_ND, z_ND, temperature=0.1)
    >>> round(float(loss), 5), float(metrics["contrastive_accuracy"])
    (0.00054, 1.0)
    """
    z_a, z_b = comparable(z_a, z_b, temperature=temperature, normalize=normalize)
    if block_rows is not None:
        z_VND = jnp.stack([z_a, z_b])
        count, tiles = count_blocks(len(z_a), block_rows), count_tiles(len(z_a), block_columns)
        return in_blocks(z_VND, temperature, count, gather, False, tiles)
    return _all_at_once(z_a, z_b, temperature, gather)


def _all_at_once(
    z_a: jax.Array, z_b: jax.Array, temperature: float, gather: Gather
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """NT-Xent of inner products of embeddings, with all rows of logits in memory."""
    all_a, all_b = gather(z_a), gather(z_b)

    def similarity(x_ND: jax.Array, y_ND: jax.Array) -> jax.Array:
        # HIGHEST: a TPU's default precision rounds to bfloat16, too coarse at a low temperature.
        return jnp.matmul(x_ND, y_ND.T, precision=Precision.HIGHEST) / temperature

    self_NN = jnp.eye(len(z_a), dtype=bool)
    logits_ab, logits_ba = similarity(z_a, all_b), similarity(z_b, all_a)
    logits_aa, logits_bb = similarity(z_a, all_a), similarity(z_b, all_b)

    def cross_entropy(cross_NN: jax.Array, within_NN: jax.Array) -> jax.Array:
        """The cross-entropy of each row, softplus(logsumexp of the negatives - positive).

        The usual form, logsumexp of all - positive, rounds the small loss of an easy row to 0.
        """
        negatives_N2N = jnp.concatenate([cross_NN, within_NN], axis=1)
        negatives_N2N = jnp.where(jnp.tile(self_NN, 2), -jnp.inf, negatives_N2N)
        positive_N = jnp.diagonal(cross_NN)
        return jax.nn.softplus(jax.nn.logsumexp(negatives_N2N, axis=1) - positive_N)

    loss_a = cross_entropy(logits_ab, logits_aa)
    loss_b = cross_entropy(logits_ba, logits_bb)
    loss = jnp.mean(loss_a + loss_b)

    logits_ab = jax.lax.stop_gradient(logits_ab)
    correct_N, entropy_N = contrastive_scores(logits_ab, jnp.arange(len(z_a)))
    return loss, contrastive_metrics(correct_N, entropy_N)
