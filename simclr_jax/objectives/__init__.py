"""The objectives of training: (params, batch_stats, batch) → (gradients, batch_stats, metrics).

An objective is a pytree. Its leaves are the arrays that it needs and does not train, such as those
of a teacher; all else is static. So `jit` takes it as an argument, and no program contains weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Batch = Mapping[str, jax.Array]  # The arrays of a global batch by name.
Metrics = dict[str, jax.Array]  # Scalars by name.


class Gradients(NamedTuple):
    """The result of an objective for one batch.

    Attributes:
      gradients: The gradients of the loss with respect to the parameters, a tree like theirs.
      batch_stats: The moving averages of the batch norms after this batch.
      metrics: Scalars by name. "loss" is the loss that is differentiated.
    """

    gradients: Any
    batch_stats: Any
    metrics: Metrics


# A function of the parameters, the moving averages of the batch norms, and a batch.
Objective = Callable[[Any, Any, Batch], Gradients]
