"""NT-Xent, SimCLR's contrastive loss. Math only: no config, no mesh, no collective.

Shapes: N images of the global batch, V = 2 views, D projection. `z_a[i]` and `z_b[i]` are two views
of image i.
"""

import chex
import jax
import jax.numpy as jnp
from jax.lax import Precision

from simclr_jax.losses.blocks import Gather, count_blocks, identity, in_blocks
from simclr_jax.losses.measures import l2_normalize, means, retrieval


def nt_xent(
    z_a: jax.Array,
    z_b: jax.Array,
    *,
    temperature: float,
    normalize: bool = True,
    block_rows: int | None = None,
    gather: Gather = identity,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Normalised temperature-scaled cross-entropy loss.

    Each row scores its positive, the other view of the same image, against the 2N - 2 views of
    other images. The loss is mean(loss_a + loss_b), **twice** the mean over 2N rows of Eq. 1: so
    the authors' code has it, and the published learning rates belong to that scale. At its start
    it is near 2 log(2N - 1).

    Args:
      z_a: (N, D) projections of one view; any float dtype. Computed in at least float32.
      z_b: (N, D) projections of the other view.
      temperature: > 0; the paper's tau.
      normalize: compare cosine similarities; False compares inner products (Table 5).
      block_rows: compute this many of the 2N rows of logits at a time, at most (an even divisor of
        2N is used), and again for the gradient: memory O(N·block_rows). None: all at once, O(N²).
      gather: brings an array of all N images to where rows are compared with it; for rows that
        are split over devices, a copy on each.

    Returns:
      The scalar loss, and {"contrastive_accuracy": how often view a's nearest among N views b is
      its own, "contrastive_entropy": of that softmax, in nats}.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The temperature or block_rows is not positive.

    Reference: Chen et al. 2020, Eq. 1 and Algorithm 1 (arXiv 2002.05709).
    """
    chex.assert_rank([z_a, z_b], 2)
    chex.assert_equal_shape([z_a, z_b])
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    dtype = jnp.result_type(z_a, z_b, jnp.float32)
    z_a, z_b = jnp.asarray(z_a, dtype), jnp.asarray(z_b, dtype)
    if normalize:
        z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)
    if block_rows is not None:
        z_VND = jnp.stack([z_a, z_b])
        return in_blocks(z_VND, temperature, count_blocks(len(z_a), block_rows), gather)
    return _all_at_once(z_a, z_b, temperature, gather)


def _all_at_once(
    z_a: jax.Array, z_b: jax.Array, temperature: float, gather: Gather
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """NT-Xent of z as it is, with all rows of logits in memory."""
    all_a, all_b = gather(z_a), gather(z_b)

    def similarity(x_ND: jax.Array, y_ND: jax.Array) -> jax.Array:
        # HIGHEST: a TPU would otherwise round float32 operands to bfloat16, too coarse at low tau.
        return jnp.matmul(x_ND, y_ND.T, precision=Precision.HIGHEST) / temperature

    self_NN = jnp.eye(len(z_a), dtype=bool)
    logits_ab, logits_ba = similarity(z_a, all_b), similarity(z_b, all_a)
    logits_aa, logits_bb = similarity(z_a, all_a), similarity(z_b, all_b)

    def cross_entropy(cross_NN: jax.Array, within_NN: jax.Array) -> jax.Array:
        """-log of the positive's share of the softmax, as softplus(log Σ negatives - positive).

        The textbook logsumexp - positive would lose the small loss of an easy positive to rounding.
        """
        negatives_N2N = jnp.concatenate([cross_NN, within_NN], axis=1)
        negatives_N2N = jnp.where(jnp.tile(self_NN, 2), -jnp.inf, negatives_N2N)
        positive_N = jnp.diagonal(cross_NN)
        return jax.nn.softplus(jax.nn.logsumexp(negatives_N2N, axis=1) - positive_N)

    loss_a = cross_entropy(logits_ab, logits_aa)
    loss_b = cross_entropy(logits_ba, logits_bb)
    loss = jnp.mean(loss_a + loss_b)

    logits_ab = jax.lax.stop_gradient(logits_ab)
    correct_N, entropy_N = retrieval(logits_ab, jnp.arange(len(z_a)))
    return loss, means(correct_N, entropy_N)
