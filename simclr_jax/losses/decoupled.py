"""The decoupled contrastive loss: NT-Xent without the positive in the denominator.

Shapes: N images of the global batch, V = 2 views, D projection.
"""

import jax
import jax.numpy as jnp

from simclr_jax.losses.blocks import Gather, count_blocks, identity, in_blocks
from simclr_jax.losses.measures import comparable
from simclr_jax.losses.tiles import count_tiles


def dcl(
    z_a: jax.Array,
    z_b: jax.Array,
    *,
    temperature: float,
    normalize: bool = True,
    block_rows: int | None = None,
    block_columns: int | None = None,
    gather: Gather = identity,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The decoupled contrastive loss (DCL).

    The positive p of a row u is the other view of its image, and its negatives n are the 2N - 2
    views of other images. The loss of the row is

        -u·p/τ + log Σ_n exp(u·n/τ).

    NT-Xent's gradient is smaller by the softmax's share of the negatives, which is small where they
    are few or easy; this one's is not. Embeddings which are all equally similar have the loss
    2 log(2N - 2), and good ones have a negative loss.

    The loss is mean(loss_a + loss_b), twice the mean over 2N rows, for the same learning rates as
    NT-Xent's. The paper's sum over all rows would be N times it. The paper's weighted form is not
    here.

    Args:
      z_a: The projections (N, D) of one view, in any float dtype. The loss is computed in at least
        float32.
      z_b: The projections (N, D) of the other view.
      temperature: The temperature τ, above 0.
      normalize: Whether to compare views by cosine similarity; otherwise it is by inner product.
      block_rows: The largest number of rows of logits, of 2N, in memory at a time; None: all.
      block_columns: The number of columns of a block of rows, of 2N, in memory at a time, as
        `tiles.count_tiles` takes it; None: all.
      gather: Gathers an array of the rows of all N images, so that each device has a full copy.

    Returns:
      The loss, a scalar, and the metrics of `nt_xent`. With one image, which has no negatives, a
      row's loss is -u·p/τ.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The temperature is not positive, or `block_rows` or `block_columns` is less than
        2.

    Reference: Yeh et al. 2021, Eq. 6 (arXiv 2110.06848).

    >>> z_ND = jnp.eye(4)  # Six orthogonal negatives a row: 2 (log 6 - 1/τ).
    >>> round(float(dcl(z_ND, z_ND, temperature=0.5)[0]), 4)
    -0.4165
    """
    z_VND = jnp.stack(comparable(z_a, z_b, temperature=temperature, normalize=normalize))
    count = 1 if block_rows is None else count_blocks(len(z_a), block_rows)
    tiles = count_tiles(len(z_a), block_columns)
    return in_blocks(z_VND, temperature, count, gather, True, tiles)
