"""Distillation: a student learns what a frozen teacher says of the same views.

Shapes: N images, V views of each, C classes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from simclr_jax import losses
from simclr_jax.augment.device import Late, views_of
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives import Batch, Gradients, Metrics

# A loss of the student's and the teacher's logits (N, C), the labels (N,) and the images' weights
# (N,) among the labelled ones: a scalar and metrics.
Loss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Metrics]]


@flax.struct.dataclass
class Teacher:
    """A network with a classifier, and its weights, which are not trained.

    Attributes:
      model: The network.
      variables: The weights, {"params", "batch_stats"}.
    """

    model: SimCLR = flax.struct.field(pytree_node=False)
    variables: Any


@flax.struct.dataclass
class Distilled:
    """The loss of a student that learns from a teacher, and from labels where there are some.

    Attributes:
      model: The student, with a classifier whose gradient reaches the encoder.
      teacher: The teacher, whose batch norm is in inference mode.
      loss: The loss of the logits of both, such as `mixture` with its temperature.
      late: The augmentations that the device applies.

    Reference: Chen et al. 2020, SimCLRv2, section 2 (arXiv 2006.10029).
    """

    model: SimCLR = flax.struct.field(pytree_node=False)
    teacher: Teacher
    loss: Loss = flax.struct.field(pytree_node=False)
    late: Late = flax.struct.field(pytree_node=False, default=Late())

    def __call__(self, params: Any, batch_stats: Any, batch: Batch) -> Gradients:
        """Computes the gradients of a batch.

        Args:
          params: The parameters of the student.
          batch_stats: The moving averages of the student's batch norms before this batch.
          batch: "image" (N, V, S, S, C), uint8 or float in [0, 1], "label" (N,) int32, which is -1
            for an image without a label, and "blur_sigma" (N, V) float in pixels. Where it is a
            part of a larger batch, also "label_weight", its images' `losses.label_weights` in the
            larger one.
        """
        images = views_of(batch, self.late)
        taught: Any = self.teacher.model.apply(self.teacher.variables, images, train=False)
        views = batch["image"].shape[1]
        weights = batch.get("label_weight", losses.label_weights(batch["label"]))
        labels, weights = jnp.repeat(batch["label"], views), jnp.repeat(weights, views)

        def mean_loss(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
            variables = {"params": params, "batch_stats": batch_stats}
            outputs: Any
            outputs, updated = self.model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            loss, metrics = self.loss(outputs.logits, taught.logits, labels, weights)
            return loss, (updated["batch_stats"], {"loss": loss, **metrics})

        gradients, (batch_stats, metrics) = jax.grad(mean_loss, has_aux=True)(params)
        return Gradients(gradients, batch_stats, metrics)


def mixture(temperature: float, label_weight: float, *, labelled: bool = True) -> Loss:
    """The loss of distillation, mixed with the cross-entropy of the labels.

    It is (1 - α)·distillation + α·cross-entropy. Each of both is the mean over its images: all of a
    batch, and those with labels. With α = 0 it is equation 2, otherwise equation 3 with α in place
    of 1 - α.

    Args:
      temperature: The temperature of the distillation, above 0.
      label_weight: The weight α of the labelled part, 0 to 1.
      labelled: Whether there are labels at all. Otherwise the loss is that of distillation, and
        nothing is measured by labels.

    Reference: Chen et al. 2020, SimCLRv2, equations 2 and 3 (arXiv 2006.10029).
    """
    if not labelled:
        return partial(_distillation, temperature=temperature)
    return partial(_mixture, temperature=temperature, label_weight=label_weight)


def _distillation(
    logits: jax.Array,
    taught: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    temperature: float,
) -> tuple[jax.Array, Metrics]:
    del labels, weights
    distilled, agreement = losses.distillation(logits, taught, temperature=temperature)
    return distilled, {"distillation_loss": distilled, "teacher_agreement": agreement}


def _mixture(
    logits: jax.Array,
    taught: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    temperature: float,
    label_weight: float,
) -> tuple[jax.Array, Metrics]:
    distilled, metrics = _distillation(logits, taught, labels, weights, temperature=temperature)
    labelled, accuracy = losses.cross_entropy(logits, labels, weights)
    return (1.0 - label_weight) * distilled + label_weight * labelled, {
        **metrics,
        "classifier_loss": labelled,
        "train_accuracy": accuracy,
    }
