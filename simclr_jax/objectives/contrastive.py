"""SimCLR's objective: the sum of the contrastive loss and the online classifier's loss.

Shapes: N images, V = 2 views, D projection, C classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from simclr_jax import losses
from simclr_jax.augment.device import Late, views_of
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives import Batch, Gradients, Metrics

# A contrastive loss: a function from the embeddings (N, D) of both views to a scalar and metrics.
Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, Metrics]]


class Encoded(NamedTuple):
    """The outputs of the network for a training batch.

    Attributes:
      z: The embeddings (N, 2, D) of both views.
      classified: The online classifier's "classifier_loss" and "online_accuracy", which are means
        over the batch; empty without labels.
      batch_stats: The moving averages of the batch norms after this batch.
    """

    z: jax.Array
    classified: Metrics
    batch_stats: Any


@flax.struct.dataclass
class Contrastive:
    """The contrastive loss of two views, plus the loss of the online classifier.

    Attributes:
      model: The network.
      loss: The contrastive loss, (z_a, z_b) → (scalar, metrics), such as `losses.nt_xent` with its
        temperature.
      late: The augmentations that the device applies.
      kept: The number of images, the first of the batch, of which the metrics also have the
        embeddings, as "embeddings" (n, 2, D).

    Reference: Chen et al. 2020, Algorithm 1 (arXiv 2002.05709).
    """

    model: SimCLR = flax.struct.field(pytree_node=False)
    loss: Loss = flax.struct.field(pytree_node=False)
    late: Late = flax.struct.field(pytree_node=False, default=Late())
    kept: int = flax.struct.field(pytree_node=False, default=0)

    def __call__(self, params: Any, batch_stats: Any, batch: Batch) -> Gradients:
        """Computes the gradients of a batch.

        Args:
          params: The parameters of the model.
          batch_stats: The moving averages of the batch norms before this batch.
          batch: "image" (N, 2, S, S, C), uint8 or float in [0, 1], "label" (N,) int32 and
            "blur_sigma" (N, 2) float in pixels.
        """

        def total(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
            encoded = self.encode(params, batch_stats, batch)
            contrastive, metrics = self.compare(encoded.z)
            loss = contrastive + encoded.classified.get("classifier_loss", 0.0)
            return loss, (encoded.batch_stats, {"loss": loss, **metrics, **encoded.classified})

        gradients, (batch_stats, metrics) = jax.grad(total, has_aux=True)(params)
        return Gradients(gradients, batch_stats, metrics)

    def encode(self, params: Any, batch_stats: Any, batch: Batch) -> Encoded:
        """Computes the embeddings of both views and the online classifier's metrics.

        Args:
          params: The parameters of the model.
          batch_stats: The moving averages of the batch norms before this batch.
          batch: The batch, as `__call__` takes it. Where it is a part of a larger batch, also
            "label_weight", its images' `losses.label_weights` in the larger one.
        """
        variables = {"params": params, "batch_stats": batch_stats}
        images = views_of(batch, self.late)
        outputs: Any
        outputs, updated = self.model.apply(variables, images, train=True, mutable=["batch_stats"])
        classified: Metrics = {}
        if outputs.logits is not None:
            weights = batch.get("label_weight", losses.label_weights(batch["label"]))
            loss, accuracy = losses.cross_entropy(
                outputs.logits, jnp.repeat(batch["label"], 2), jnp.repeat(weights, 2)
            )
            classified = {"classifier_loss": loss, "online_accuracy": accuracy}
        z_NVD = outputs.z[-1].reshape(-1, 2, outputs.z[-1].shape[-1])
        return Encoded(z_NVD, classified, updated["batch_stats"])

    def compare(self, z_NVD: jax.Array) -> tuple[jax.Array, Metrics]:
        """The contrastive loss and its metrics.

        Args:
          z_NVD: The embeddings (N, 2, D) of the global batch.
        """
        z_a, z_b = z_NVD[:, 0], z_NVD[:, 1]
        loss, metrics = self.loss(z_a, z_b)
        found = {"contrastive_loss": loss, **metrics, **losses.collapse(z_a, z_b)}
        return loss, found | ({"embeddings": z_NVD[: self.kept]} if self.kept else {})
