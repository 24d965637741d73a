"""Gradients of a loss over a large batch, in the memory of a small one.

The contrastive loss does not divide into microbatches: every image is compared with all others.
But it depends on the network only through the embeddings. So a first pass embeds every microbatch
and keeps nothing else, the loss of all embeddings gives the gradient with respect to each, and a
second pass runs each microbatch again and pulls its embeddings' gradient back to the parameters.
It costs one more forward pass; where each image's embedding depends on that image alone the result
is the whole batch's gradient exactly. (The idea: Gao et al. 2021, arXiv 2101.06983.)
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from simclr_jax.models.resnet import BATCH_NORM_MOMENTUM
from simclr_jax.objectives import Batch, Gradients, Metrics
from simclr_jax.objectives.contrastive import Contrastive


@dataclass(frozen=True)
class TwoPasses:
    """A contrastive objective over microbatches; microbatch r of `count` has the rows ≡ r.

    So every device has rows of every microbatch. Batch norm normalises as the model does, by each
    microbatch's statistics or by the moving averages. The moving averages take one step, towards
    the statistics of the whole batch that the first pass saw.

    Attributes:
      objective: The objective of the whole batch.
      count: The number of microbatches, a divisor of the number of rows.
    """

    objective: Contrastive
    count: int

    def __call__(self, params: Any, batch_stats: Any, batch: Batch) -> Gradients:
        """The gradients of a batch, as `Contrastive` returns them."""
        count, encode = self.count, self.objective.encode
        divided = {key: x.reshape(-1, count, *x.shape[1:]) for key, x in batch.items()}

        def rows(r: jax.Array) -> Batch:
            return {
                key: jax.lax.dynamic_index_in_dim(x, r, axis=1, keepdims=False)
                for key, x in divided.items()
            }

        def embed(r: jax.Array) -> tuple[jax.Array, Any]:
            encoded = encode(params, batch_stats, rows(r))
            return encoded.z, encoded.batch_stats

        z_RMVD, updated = jax.lax.map(embed, jnp.arange(count))
        z_NVD = jnp.moveaxis(z_RMVD, 0, 1).reshape(-1, *z_RMVD.shape[2:])
        value_and_gradient = jax.value_and_grad(self.objective.compare, has_aux=True)
        (contrastive, metrics), dz_NVD = value_and_gradient(z_NVD)
        dz_MRVD = dz_NVD.reshape(-1, count, *dz_NVD.shape[1:])

        def pull_back(gradients: Any, r: jax.Array) -> tuple[Any, Metrics]:
            def surrogate(params: Any) -> tuple[jax.Array, Metrics]:
                encoded = encode(params, batch_stats, rows(r))
                classified = {key: mean / count for key, mean in encoded.classified.items()}
                dz_MVD = jax.lax.dynamic_index_in_dim(dz_MRVD, r, axis=1, keepdims=False)
                loss = classified.get("classifier_loss", 0.0)
                return jnp.sum(encoded.z * dz_MVD) + loss, classified

            more, classified = jax.grad(surrogate, has_aux=True)(params)
            return jax.tree.map(jnp.add, gradients, more), classified

        zeros = jax.tree.map(jnp.zeros_like, params)
        gradients, classified = jax.lax.scan(pull_back, zeros, jnp.arange(count))
        classified = {key: shares.sum() for key, shares in classified.items()}
        loss = contrastive + classified.get("classifier_loss", 0.0)
        return Gradients(
            gradients, _whole_statistics(updated), {"loss": loss, **metrics, **classified}
        )


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
