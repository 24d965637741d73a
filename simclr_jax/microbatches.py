"""Gradients of a loss over a large batch, in the memory of a small one.

The contrastive loss does not divide into microbatches: every image is compared with all others.
But it depends on the network only through the embeddings. So a first pass embeds every microbatch
and keeps nothing else, the loss of all embeddings gives the gradient with respect to each, and a
second pass runs each microbatch again and pulls its embeddings' gradient back to the parameters.
It costs one more forward pass; where each image's embedding depends on that image alone the result
is the whole batch's gradient exactly. (The idea: Gao et al. 2021, arXiv 2101.06983.)
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from simclr_jax import losses
from simclr_jax.models.resnet import BATCH_NORM_MOMENTUM


def two_passes(
    params: Any,
    batch_stats: Any,
    batch: Mapping[str, jax.Array],
    encode: Callable[..., Any],
    loss: Callable[..., Any],
    *,
    count: int,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """As `step.whole_batch`; microbatch r of `count` has the rows ≡ r, some of every device's.

    Args:
      params, batch_stats: of the model.
      batch: of n rows, a multiple of `count`.
      encode: (params, batch_stats, rows) → ((z (m, 2, D), {name: mean over rows}), batch_stats).
      loss: (z_a, z_b) → (scalar, metrics), over the whole batch.

    Returns:
      (gradients, batch_stats, metrics). Batch norm normalises as `encode`'s model does, by each
      microbatch's statistics or by the moving averages. The moving averages take one step, towards
      the statistics of the whole batch that the first pass saw.
    """
    divided = {key: x.reshape(-1, count, *x.shape[1:]) for key, x in batch.items()}

    def rows(r: jax.Array) -> dict[str, jax.Array]:
        return {
            key: jax.lax.dynamic_index_in_dim(x, r, axis=1, keepdims=False)
            for key, x in divided.items()
        }

    def embed(r: jax.Array) -> Any:
        (z_M2D, _), updated = encode(params, batch_stats, rows(r))
        return z_M2D, updated

    z_RM2D, updated = jax.lax.map(embed, jnp.arange(count))
    z_N2D = jnp.moveaxis(z_RM2D, 0, 1).reshape(-1, *z_RM2D.shape[2:])
    loss_and_gradient = jax.value_and_grad(lambda z: loss(z[:, 0], z[:, 1]), has_aux=True)
    (contrastive, metrics), dz_N2D = loss_and_gradient(z_N2D)
    dz_MR2D = dz_N2D.reshape(-1, count, *dz_N2D.shape[1:])

    def pull_back(grads: Any, r: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        def surrogate(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            (z_M2D, classified), _ = encode(params, batch_stats, rows(r))
            classified = {key: mean / count for key, mean in classified.items()}
            dz_M2D = jax.lax.dynamic_index_in_dim(dz_MR2D, r, axis=1, keepdims=False)
            return jnp.sum(z_M2D * dz_M2D) + classified.get("classifier_loss", 0.0), classified

        more, classified = jax.grad(surrogate, has_aux=True)(params)
        return jax.tree.map(jnp.add, grads, more), classified

    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, classified = jax.lax.scan(pull_back, zeros, jnp.arange(count))
    classified = {key: shares.sum() for key, shares in classified.items()}
    spread = losses.spread(z_N2D[:, 0], z_N2D[:, 1])
    metrics = {"contrastive_loss": contrastive, **metrics, **spread, **classified}
    return grads, _whole_statistics(updated), metrics


def _whole_statistics(updated: Any) -> Any:
    """Moving averages after the whole batch, from those after each of its microbatches alone.

    The mean is the mean of means. The variance is the mean of variances plus the variance of the
    means, of which an average updated by a step of 1 - momentum holds the square of that step.
    """
    step = 1.0 - BATCH_NORM_MOMENTUM

    def merge(stats: Any) -> Any:
        if "mean" in stats and "var" in stats:
            spread = jnp.var(stats["mean"], axis=0) / step
            return {"mean": stats["mean"].mean(axis=0), "var": stats["var"].mean(axis=0) + spread}
        return {key: merge(below) for key, below in stats.items()}

    return merge(updated)
