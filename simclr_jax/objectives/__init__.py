"""What a step minimises: (params, batch_stats, batch) → (gradients, batch_stats, metrics)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class Gradients(NamedTuple):
    """What an objective returns.

    Attributes:
      gradients: The gradients of the loss with respect to the parameters, a tree like theirs.
      batch_stats: The batch-norm statistics after this batch.
      metrics: Scalars by name; "loss" is what the gradients are of.
    """

    gradients: Any
    batch_stats: Any
    metrics: Metrics


Objective = Callable[[Any, Any, Batch], Gradients]
