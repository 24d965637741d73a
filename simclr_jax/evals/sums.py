"""Sums over a block of rows, of which a pass of logistic regressions over the features is made.

Shapes: n rows, F features, K regressions, C classes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from simclr_jax.evals.passes import Block

product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)  # An exact sum of products.


def total(block: Block) -> jax.Array:
    """Σₙ xₙ, (F,)."""
    return product("n,nf->f", block["weight"], block["x"])


def products(block: Block, mean: jax.Array) -> jax.Array:
    """Σₙ (xₙ - mean)ᵀ (xₙ - mean), (F, F)."""
    x = block["x"] - mean[None]
    return product("nf,ng->fg", block["weight"][:, None] * x, x)


def squares(block: Block, mean: jax.Array) -> jax.Array:
    """Σₙ (xₙ - mean)², elementwise, (F,)."""
    return product("n,nf->f", block["weight"], (block["x"] - mean[None]) ** 2)


def losses(block: Block, kernel: jax.Array, bias: jax.Array, mean: jax.Array) -> Any:
    """The sum of the cross-entropies (K,), and its gradient with respect to W and b.

    Args:
      block: The rows.
      kernel: The weights W (K, F, C) of the centred features.
      bias: The bias b (K, C).
      mean: The mean of the features (F,).
    """
    x = block["x"] - mean[None]
    logits = product("nf,kfc->nkc", x, kernel) + bias[None]
    label = jax.nn.one_hot(block["label"], logits.shape[2])[:, None]
    weight = block["weight"][:, None]
    log_p = jax.nn.log_softmax(logits)
    residual = weight[..., None] * (jnp.exp(log_p) - label)
    loss = -(weight * (log_p * label).sum(axis=2)).sum(axis=0)
    return loss, (product("nf,nkc->kfc", x, residual), residual.sum(axis=0))


def hits(block: Block, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums of `Regressions.right` over a block."""
    logits = product("nf,kfc->nkc", block["x"], kernel) + bias[None]
    label = jax.nn.one_hot(block["label"], logits.shape[2])
    right = block["weight"][:, None] * (logits.argmax(axis=2) == block["label"][:, None])
    loss = -(jax.nn.log_softmax(logits) * label[:, None]).sum(axis=2)
    return right.T @ label, block["weight"] @ loss


def binary_losses(block: Block, kernel: jax.Array, bias: jax.Array, mean: jax.Array) -> Any:
    """What `losses` is with several labels an image."""
    x = block["x"] - mean[None]
    logits = product("nf,kfc->nkc", x, kernel) + bias[None]
    label = block["label"][:, None]
    weight = block["weight"][:, None, None] * (label >= 0)
    losses = optax.sigmoid_binary_cross_entropy(logits, (label == 1).astype(logits.dtype))
    residual = weight * (jax.nn.sigmoid(logits) - (label == 1))
    loss = (weight * losses).sum(axis=(0, 2))
    return loss, (product("nf,nkc->kfc", x, residual), residual.sum(axis=0))


def binary_hits(block: Block, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What `hits` is with several labels an image."""
    logits = product("nf,kfc->nkc", block["x"], kernel) + bias[None]
    label = block["label"][:, None]
    weight = block["weight"][:, None, None] * (label >= 0)
    losses = optax.sigmoid_binary_cross_entropy(logits, (label == 1).astype(logits.dtype))
    right = (logits > 0) == (label == 1)
    return (weight * right).sum(axis=0), (weight * losses).sum(axis=(0, 2))
