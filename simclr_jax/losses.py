"""Contrastive losses on embeddings. Math only: no config, no mesh, no collective.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block. `z_a[i]` and
`z_b[i]` are two views of image i.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.lax import Precision


def l2_normalize(z_ND: jax.Array) -> jax.Array:
    """Scales rows to unit length; a zero row stays zero and has a finite gradient."""
    return z_ND * jax.lax.rsqrt(jnp.maximum(jnp.sum(z_ND**2, axis=-1, keepdims=True), 1e-12))


Gather = Callable[[jax.Array], jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """The `gather` of rows that are on one device."""
    return x


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
      ValueError: the shapes differ or are not (N, D), or temperature or block_rows is not positive.

    Reference: Chen et al. 2020, Eq. 1 and Algorithm 1 (arXiv 2002.05709).
    """
    if z_a.shape != z_b.shape or z_a.ndim != 2:
        raise ValueError(f"z_a and z_b must both be (N, D), got {z_a.shape} and {z_b.shape}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    dtype = jnp.result_type(z_a, z_b, jnp.float32)
    z_a, z_b = jnp.asarray(z_a, dtype), jnp.asarray(z_b, dtype)
    if normalize:
        z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)
    if block_rows is not None:
        z_VND = jnp.stack([z_a, z_b])
        return _in_blocks(z_VND, temperature, blocks(len(z_a), block_rows), gather)
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
    correct_N, entropy_N = _retrieval(logits_ab, jnp.arange(len(z_a)))
    return loss, _metrics(correct_N, entropy_N)


def _retrieval(logits_BN: jax.Array, image_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether each row's largest logit is its own image's, and its softmax's entropy in nats."""
    p_BN = jax.nn.softmax(logits_BN, axis=1)
    correct_B = (jnp.argmax(logits_BN, axis=1) == image_B).astype(logits_BN.dtype)
    return correct_B, -jnp.sum(p_BN * jnp.log(p_BN + 1e-8), axis=1)


def _metrics(correct_N: jax.Array, entropy_N: jax.Array) -> dict[str, jax.Array]:
    return {
        "contrastive_accuracy": jnp.mean(correct_N),
        "contrastive_entropy": jnp.mean(entropy_N),
    }


def collapse(z_a: jax.Array, z_b: jax.Array) -> dict[str, jax.Array]:
    """How far apart the embeddings (B, D) of different images are: where a collapse shows.

    Returns:
      mean_similarity: the mean cosine similarity of two different images' embeddings, 1 where all
        are the same.
      effective_rank: 1 / Σλ² for the eigenvalues λ, which sum to 1, of the second moment of the
        normalised embeddings: the number of directions they fill, from 1 to D. (The exponential of
        the Rényi entropy of order 2; with Shannon's it is Roy & Vetterli 2007's.)
    """
    images = len(z_a)
    z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)
    pairs_ND = z_a + z_b
    total = jnp.sum(jnp.sum(pairs_ND, axis=0) ** 2) - jnp.sum(pairs_ND**2)
    precision = jax.lax.Precision.HIGHEST
    moment_DD = jnp.matmul(z_a.T, z_a, precision=precision)
    moment_DD = (moment_DD + jnp.matmul(z_b.T, z_b, precision=precision)) / (2 * images)
    return {
        "mean_similarity": total / (4 * images * max(1, images - 1)),
        "effective_rank": 1.0 / jnp.sum(moment_DD**2),
    }


def blocks(images: int, block_rows: int) -> int:
    """The smallest number of equal blocks of images with at most block_rows views each."""
    if block_rows < 2:
        raise ValueError(f"block_rows must be at least 2, an image's two views, got {block_rows}")
    fewest = -(-2 * images // block_rows)
    return next(count for count in range(fewest, images + 1) if images % count == 0)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _in_blocks(
    z_VND: jax.Array, temperature: float, count: int, gather: Gather
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`nt_xent` of z as it is, `count` blocks of rows one after another.

    Row i, one of 2N, has logits s_ij = z_i·z_j/τ. With L_i = logsumexp of its negatives' logits
    and p_i its positive's, its loss is softplus(L_i - p_i), and with σ_i = sigmoid(L_i - p_i)

        ∂loss_i/∂s_ij = σ_i exp(s_ij - L_i) for a negative j,  -σ_i for the positive.

    s is symmetric, and j is a negative of i when i is one of j. So the gradient of all losses with
    respect to z_i needs row i of s alone, and (L, σ) of every row:

        τ ∂/∂z_i = Σ_j [σ_i exp(s_ij - L_i) + σ_j exp(s_ij - L_j)] z_j - (σ_i + σ_pos) z_pos.
    """
    return _forward(z_VND, temperature, count, gather)[0]


def _forward(z_VND: jax.Array, temperature: float, count: int, gather: Gather) -> Any:
    all_VND = gather(z_VND)

    def rows(z_VBD: jax.Array, image_B: jax.Array) -> tuple[jax.Array, ...]:
        logits_VBVN = _logits(z_VBD, all_VND, temperature)
        negatives_VBVN = _without_own_image(logits_VBVN, image_B)
        lse_VB = jax.nn.logsumexp(negatives_VBVN, axis=(2, 3))
        return lse_VB, *(x_B[None] for x_B in _retrieval(logits_VBVN[0, :, 1], image_B))

    lse_VN, correct_1N, entropy_1N = _by_blocks(rows, count, z_VND)
    positive_N = jnp.sum(z_VND[0] * z_VND[1], axis=-1) / temperature
    margin_VN = lse_VN - positive_N[None]
    loss = jnp.mean(jnp.sum(jax.nn.softplus(margin_VN), axis=0))
    # Without negatives (N = 1) the logsumexp is -inf, and every weight on it 0.
    saved = z_VND, all_VND, jnp.maximum(lse_VN, jnp.finfo(lse_VN.dtype).min), margin_VN
    return (loss, _metrics(correct_1N, entropy_1N)), saved


def _backward(temperature: float, count: int, gather: Gather, saved: Any, cotangent: Any) -> Any:
    z_VND, all_VND, own_lse_VN, margin_VN = saved
    own_sigma_VN = jax.nn.sigmoid(margin_VN)
    statistics = jnp.stack([own_lse_VN, own_sigma_VN], axis=2)
    lse_VN, sigma_VN = jnp.moveaxis(gather(statistics), 2, 0)

    def rows(
        z_VBD: jax.Array, lse_VB: jax.Array, sigma_VB: jax.Array, image_B: jax.Array
    ) -> tuple[jax.Array]:
        logits_VBVN = _logits(z_VBD, all_VND, temperature)
        negatives_VBVN = _without_own_image(logits_VBVN, image_B)
        weight_VBVN = (
            sigma_VB[:, :, None, None] * jnp.exp(negatives_VBVN - lse_VB[:, :, None, None])
            + sigma_VN[None, None] * jnp.exp(negatives_VBVN - lse_VN[None, None])
        )  # fmt: skip
        return (jnp.einsum("vbwn,wnd->vbd", weight_VBVN, all_VND, precision=Precision.HIGHEST),)

    (negative_VND,) = _by_blocks(rows, count, z_VND, own_lse_VN, own_sigma_VN)
    positive_VND = jnp.sum(own_sigma_VN, axis=0)[None, :, None] * z_VND[::-1]
    scale = cotangent[0] / (temperature * z_VND.shape[1])
    return (scale * (negative_VND - positive_VND),)


_in_blocks.defvjp(_forward, _backward)


def _logits(z_VBD: jax.Array, all_VND: jax.Array, temperature: float) -> jax.Array:
    return jnp.einsum("vbd,wnd->vbwn", z_VBD, all_VND, precision=Precision.HIGHEST) / temperature


def _without_own_image(logits_VBVN: jax.Array, image_B: jax.Array) -> jax.Array:
    own_BN = image_B[:, None] == jnp.arange(logits_VBVN.shape[-1])[None, :]
    return jnp.where(own_BN[None, :, None], -jnp.inf, logits_VBVN)


def _by_blocks(
    rows: Callable[..., tuple[jax.Array, ...]], count: int, *of_rows_VN: jax.Array
) -> tuple[jax.Array, ...]:
    """rows(*blocks (V, B, …), image numbers (B,)) → arrays (V, B, …), joined to (V, N, …).

    Block k has the images ≡ k: where rows are split over devices, some of every device's.
    """
    images = of_rows_VN[0].shape[1]

    def split(x_VN: jax.Array) -> jax.Array:
        return jnp.moveaxis(x_VN.reshape(len(x_VN), images // count, count, *x_VN.shape[2:]), 2, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 2).reshape(x.shape[1], images, *x.shape[3:])

    blocks = *map(split, of_rows_VN), split(jnp.arange(images)[None])[:, 0]
    return tuple(map(join, jax.lax.map(lambda block: rows(*block), blocks)))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy and the accuracy of logits (N, C) against int labels (N,)."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(axis=-1) == labels).astype(jnp.float32).mean()


LOSSES = {"nt_xent": nt_xent}
