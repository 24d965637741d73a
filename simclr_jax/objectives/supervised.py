"""The supervised objective: the cross-entropy of the labels, through the encoder.

With one label an image it is that of a softmax; with several it is the mean of the binary
cross-entropies of a sigmoid, over all labels of the batch that count.

Shapes: N images, V views of each, C classes.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from simclr_jax import losses
from simclr_jax.augment.device import Late, views_of
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives import Batch, Gradients, Metrics

# A loss of the logits (N, C), the labels, (N,) or (N, C), and their weights: a scalar and the
# accuracy.
LabelLoss = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@flax.struct.dataclass
class Supervised:
    """The mean cross-entropy of the classifier, over the labelled images of a batch.

    Attributes:
      model: The network, with a classifier whose gradient reaches the encoder.
      late: The augmentations that the device applies.
      loss: The loss of the logits, with their accuracy.

    Reference: Chen et al. 2020, the supervised baseline and fine-tuning (arXiv 2002.05709).
    """

    model: SimCLR = flax.struct.field(pytree_node=False)
    late: Late = flax.struct.field(pytree_node=False, default=Late())
    loss: LabelLoss = flax.struct.field(pytree_node=False, default=losses.label_loss)

    def __call__(self, params: Any, batch_stats: Any, batch: Batch) -> Gradients:
        """Computes the gradients of a batch.

        Args:
          params: The parameters of the model.
          batch_stats: The moving averages of the batch norms before this batch.
          batch: "image" (N, V, S, S, C), uint8 or float in [0, 1], "label" (N,) int32 or
            (N, C) int8, and "blur_sigma" (N, V) float in pixels. Where it is a part of a larger
            batch, also "label_weight", its labels' `losses.label_weights` in the larger one.
        """
        images = views_of(batch, self.late)
        views = batch["image"].shape[1]
        weights = batch.get("label_weight", losses.label_weights(batch["label"]))
        labels, weights = (jnp.repeat(x, views, axis=0) for x in (batch["label"], weights))

        def mean_loss(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
            variables = {"params": params, "batch_stats": batch_stats}
            outputs, updated = self.model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            loss, accuracy = self.loss(outputs.logits, labels, weights)
            metrics = {"loss": loss, "classifier_loss": loss, "train_accuracy": accuracy}
            return loss, (updated["batch_stats"], metrics)

        gradients, (batch_stats, metrics) = jax.grad(mean_loss, has_aux=True)(params)
        return Gradients(gradients, batch_stats, metrics)
