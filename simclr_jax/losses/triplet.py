"""The margin loss of triplets: an anchor, its positive and a negative.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block.
"""

from functools import partial

import jax
import jax.numpy as jnp

from simclr_jax.losses.blocks import Gather, identity
from simclr_jax.losses.pairs import MINING, of_anchors, positive_of


def margin_triplet(
    z_a: jax.Array,
    z_b: jax.Array,
    *,
    margin: float,
    temperature: float = 1.0,
    normalize: bool = True,
    mining: str = "none",
    block_rows: int | None = None,
    gather: Gather = identity,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The margin triplet loss.

    Each row u of either view is an anchor. Its positive p is the other view of its image, and its
    negatives n are the N - 1 other images in that other view ("negatives from one view", appendix
    B.10). The loss of the row is

        mean_n max(u·n - u·p + margin, 0),

    the mean over all of its triplets of Table 2's loss; with mining it is that of one triplet. A
    triplet at the margin has no gradient. The loss is mean(loss_a + loss_b) over images, as
    NT-Xent's is; embeddings which are all alike have the loss 2·margin.

    Two things are guesses, for the paper does not say them: that losses are averaged over all
    negatives, also those of loss 0, and that both views are anchors.

    Args:
      z_a: The projections (N, D) of one view, in any float dtype. The loss is computed in at least
        float32.
      z_b: The projections (N, D) of the other view.
      margin: The similarity by which the positive shall exceed a negative, at least 0.
      temperature: The temperature τ of the metric "contrastive_entropy" alone, above 0.
      normalize: Whether to compare views by cosine similarity; otherwise it is by inner product.
      mining: The negatives of a row that count: "none" (all) or "semi_hard" (see
        `pairs.semi_hard`), whose loss is 0 where it is not within the margin.
      block_rows: The largest number of rows of similarities, of 2N, in memory at a time; None: all.
      gather: Gathers an array of the rows of all N images, so that each device has a full copy.

    Returns:
      The loss, a scalar, and the metrics of `nt_xent`. With one image the loss is 0.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The margin is negative, the temperature is not positive, or `block_rows` is less
        than 2.

    Reference: Chen et al. 2020, Table 2 and appendix B.10 (arXiv 2002.05709); Schroff et al. 2015
    (arXiv 1503.03832).

    >>> z_ND = jnp.eye(4)  # Negatives have the similarity 0, and positives 1.
    >>> round(float(margin_triplet(z_ND, z_ND, margin=1.6)[0]), 4)
    1.2
    """
    if margin < 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    return of_anchors(
        partial(_losses, margin=margin, mining=mining), z_a, z_b,
        temperature=temperature, normalize=normalize, block_rows=block_rows, gather=gather,
    )  # fmt: skip


def _losses(
    similarity_VBN: jax.Array, own_VBN: jax.Array, *, margin: float, mining: str
) -> jax.Array:
    """The losses (V, B) of anchors."""
    weight_VBN = MINING[mining](jax.lax.stop_gradient(similarity_VBN), own_VBN)
    # relu's gradient at 0 is 0, as Table 2 has it; that of jnp.maximum is not.
    hinge_VBN = jax.nn.relu(similarity_VBN - positive_of(similarity_VBN, own_VBN) + margin)
    return jnp.sum(weight_VBN * hinge_VBN, axis=-1)
