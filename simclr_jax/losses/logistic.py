"""NT-Logistic, the logistic loss of positive and negative pairs.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block.
"""

from functools import partial

import jax
import jax.numpy as jnp

from simclr_jax.losses.blocks import Gather, identity
from simclr_jax.losses.pairs import MINING, of_anchors, positive_of


def nt_logistic(
    z_a: jax.Array,
    z_b: jax.Array,
    *,
    temperature: float,
    normalize: bool = True,
    mining: str = "none",
    block_rows: int | None = None,
    gather: Gather = identity,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The normalised temperature-scaled logistic loss.

    Each row u of either view is an anchor. Its positive p is the other view of its image, and its
    negatives n are the N - 1 other images in that other view ("negatives from one view", appendix
    B.10). With σ the logistic function the loss of the row is

        -log σ(u·p/τ) - mean_n log σ(-u·n/τ),

    the mean over all of its pairs (p, n) of Table 2's loss; with mining it is that of one pair. The
    loss is mean(loss_a + loss_b) over images, as NT-Xent's is.

    Three things are guesses, for the paper does not say them: that losses are averaged over
    negatives, that both views are anchors, and that the semi-hard choice is among all negatives
    which are farther than the positive, since there is no margin that they could be within.

    Args:
      z_a: The projections (N, D) of one view, in any float dtype. The loss is computed in at least
        float32.
      z_b: The projections (N, D) of the other view.
      temperature: The temperature τ, above 0.
      normalize: Whether to compare views by cosine similarity; otherwise it is by inner product.
      mining: The negatives of a row that count: "none" (all) or "semi_hard" (see
        `pairs.semi_hard`).
      block_rows: The largest number of rows of logits, of 2N, in memory at a time; None: all.
      gather: Gathers an array of the rows of all N images, so that each device has a full copy.

    Returns:
      The loss, a scalar, and the metrics of `nt_xent`. With one image only its positive counts.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The temperature is not positive, or `block_rows` is less than 2.

    Reference: Chen et al. 2020, Table 2 and appendix B.10 (arXiv 2002.05709).

    >>> z_ND = jnp.eye(4)  # A row: log(1 + exp(-2)) of the positive, log 2 of the negatives.
    >>> round(float(nt_logistic(z_ND, z_ND, temperature=0.5)[0]), 4)
    1.6402
    """
    return of_anchors(
        partial(_losses, temperature=temperature, mining=mining), z_a, z_b,
        temperature=temperature, normalize=normalize, block_rows=block_rows, gather=gather,
    )  # fmt: skip


def _losses(
    similarity_VBN: jax.Array, own_VBN: jax.Array, *, temperature: float, mining: str
) -> jax.Array:
    """The losses (V, B) of anchors."""
    logits_VBN = similarity_VBN / temperature
    weight_VBN = MINING[mining](jax.lax.stop_gradient(similarity_VBN), own_VBN)
    negative_VB = jnp.sum(weight_VBN * jax.nn.softplus(logits_VBN), axis=-1)
    return jax.nn.softplus(-positive_of(logits_VBN, own_VBN)[..., 0]) + negative_VB
