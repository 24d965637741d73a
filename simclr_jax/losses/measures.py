"""What is measured of embeddings and of logits, beside the loss.

Shapes: N images, B images of a block, D projection, C classes.
"""

import chex
import jax
import jax.numpy as jnp
import optax


def l2_normalize(z_ND: jax.Array) -> jax.Array:
    """Scales rows to unit length; a zero row stays zero and has a finite gradient."""
    return z_ND * jax.lax.rsqrt(jnp.maximum(jnp.sum(z_ND**2, axis=-1, keepdims=True), 1e-12))


def retrieval(logits_BN: jax.Array, image_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether each row's largest logit is its own image's, and its softmax's entropy in nats."""
    p_BN = jax.nn.softmax(logits_BN, axis=1)
    correct_B = (jnp.argmax(logits_BN, axis=1) == image_B).astype(logits_BN.dtype)
    return correct_B, -jnp.sum(p_BN * jnp.log(p_BN + 1e-8), axis=1)


def means(correct_N: jax.Array, entropy_N: jax.Array) -> dict[str, jax.Array]:
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
    chex.assert_rank([z_a, z_b], 2)
    chex.assert_equal_shape([z_a, z_b])
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


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy and the accuracy of logits (N, C) against int labels (N,)."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_equal_shape_prefix([logits, labels], 1)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(axis=-1) == labels).astype(jnp.float32).mean()
