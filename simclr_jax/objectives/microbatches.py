"""Gradients of an objective over a global batch, with the memory of a microbatch.

A loss that is a mean over the images is the mean of those of the microbatches, and so is its
gradient. The contrastive loss compares every image with all others, so it is not. But it depends on
the parameters only through the embeddings. A first pass computes the embeddings of all microbatches
without storing activations. The loss then gives its gradient with respect to the embeddings. A
second pass runs each microbatch again and propagates that gradient to the parameters. The cost is
one more forward pass.

The gradient is exact only where the outputs for an image do not depend on the other images of its
microbatch, so not where batch norm uses the statistics of the microbatch.

Shapes: N images of the global batch, V = 2 views, D projection; R microbatches of M images.

Reference: Gao et al. 2021 (arXiv 2101.06983).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax import losses
from simclr_jax.models.resnet import BATCH_NORM_MOMENTUM
from simclr_jax.objectives import Batch, Gradients, Metrics, Objective
from simclr_jax.objectives.contrastive import Contrastive


def shuffled_within(images: int, count: int, seed: int) -> np.ndarray:
    """An order (N,) of the images of a batch that leaves each in its microbatch.

    Batch norm has the same statistics in it, so only rounding tells it from another such order.

    >>> (shuffled_within(8, 2, seed=0) % 2).tolist()
    [0, 1, 0, 1, 0, 1, 0, 1]

    Args:
      images: The number N of images, or of those of one process.
      count: The number of microbatches, a divisor of it.
      seed: The seed of the order.
    """
    order = np.arange(images).reshape(-1, count)
    return np.random.default_rng(seed).permuted(order, axis=0).ravel()


def divided(objective: Objective, count: int) -> Objective:
    """An objective that takes its batch in `count` microbatches; with 1 the objective itself."""
    if count == 1:
        return objective
    whole: Any = objective
    return (TwoPasses if isinstance(objective, Contrastive) else Accumulated)(whole, count)


@flax.struct.dataclass
class Accumulated:
    """An objective that is a mean over images, computed one microbatch after the other.

    Microbatches, batch norm and the moving averages are those of `TwoPasses`.

    Attributes:
      objective: The objective of the global batch.
      count: The number of microbatches, a divisor of the number of images.
    """

    objective: Objective
    count: int = flax.struct.field(pytree_node=False)

    def __call__(self, params: Any, batch_stats: Any, batch: Batch) -> Gradients:
        """Computes the gradients of a batch, with the arguments of the objective."""
        rows = Rows(batch, self.count)

        def add(sums: Any, r: jax.Array) -> tuple[Any, tuple[Any, Metrics]]:
            found = self.objective(params, batch_stats, rows(r))
            sums = jax.tree.map(jnp.add, sums, found.gradients)
            return sums, (found.batch_stats, found.metrics)

        zeros = jax.tree.map(jnp.zeros_like, params)
        sums, (updated, metrics) = jax.lax.scan(add, zeros, jnp.arange(self.count))
        return Gradients(
            jax.tree.map(lambda gradient: gradient / self.count, sums),
            _whole_statistics(updated),
            {key: shares.mean() for key, shares in metrics.items()},
        )


class Rows:
    """The microbatches of a batch, with the weights of their labels in the whole batch.

    Args:
      batch: The batch.
      count: The number of microbatches.
    """

    def __init__(self, batch: Batch, count: int):
        batch = {**batch, "label_weight": losses.label_weights(batch["label"])}
        self._divided = {key: x.reshape(-1, count, *x.shape[1:]) for key, x in batch.items()}

    def __call__(self, r: jax.Array) -> Batch:
        """Microbatch r."""
        return {
            key: jax.lax.dynamic_index_in_dim(x, r, axis=1, keepdims=False)
            for key, x in self._divided.items()
        }


@flax.struct.dataclass
class TwoPasses:
    """A contrastive objective that runs the network on one microbatch at a time.

    Microbatch r has the images whose number is r modulo `count`, so every device has images of
    every microbatch. Batch norm uses the statistics of each microbatch, or the moving averages if
    the model does. The moving averages are updated once per batch, with the statistics of the
    global batch from the first pass.

    Attributes:
      objective: The objective of the global batch.
      count: The number of microbatches, a divisor of the number of images.

    Reference: Gao et al. 2021 (arXiv 2101.06983).
    """

    objective: Contrastive
    count: int = flax.struct.field(pytree_node=False)

    def __call__(self, params: Any, batch_stats: Any, batch: Batch) -> Gradients:
        """Computes the gradients of a batch, with the arguments of `Contrastive`."""
        count, encode = self.count, self.objective.encode
        rows = Rows(batch, count)

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
    """The moving averages after a global batch, from those after each of its microbatches alone.

    The mean of the batch is the mean of the microbatches' means. Its variance is the mean of their
    variances plus the variance of their means. Each moving mean has moved by the fraction
    1 - momentum towards its microbatch's mean, so the variance of the moving means is
    (1 - momentum)² times that of the means. The moving variance needs 1 - momentum times it.

    Args:
      updated: The moving averages after each microbatch, stacked along a first axis.
    """
    step = 1.0 - BATCH_NORM_MOMENTUM

    def merge(stats: Any) -> Any:
        if "mean" in stats and "var" in stats:
            spread = jnp.var(stats["mean"], axis=0) / step
            return {"mean": stats["mean"].mean(axis=0), "var": stats["var"].mean(axis=0) + spread}
        return {key: merge(below) for key, below in stats.items()}

    return merge(updated)
