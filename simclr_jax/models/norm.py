"""Batch normalisation, alone and with the max pooling after it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5


def batch_norm(
    *,
    train: bool,
    running: bool,
    dtype: Any,
    name: str,
    momentum: float = BATCH_NORM_MOMENTUM,
    layer: type[nn.Module] = nn.BatchNorm,
    **kwargs: Any,
) -> Callable[[jax.Array], jax.Array]:
    """Batch normalisation over the global batch.

    The moving average is that of the biased variance, divided by N; PyTorch takes the unbiased one.

    Args:
      train: Whether to update the moving averages, and to normalise by the statistics of the batch
        unless `running` is set. Without `train`, the moving averages normalise.
      running: Whether the moving averages before this batch normalise in training too.
      dtype: The dtype of the output.
      name: The name of the layer.
      momentum: The part of the moving averages that a batch leaves as it is, 0 to 1.
      layer: The layer's class, with the arguments of `nn.BatchNorm`.
      **kwargs: Further arguments of the layer.
    """
    norm = layer(momentum=momentum, epsilon=BATCH_NORM_EPSILON, dtype=dtype, name=name, **kwargs)

    def normalize(x: jax.Array) -> jax.Array:
        y = norm(x, use_running_average=running or not train)
        if running and train:
            norm(x, use_running_average=False)  # This call only updates the moving averages.
        return y

    return normalize


class PooledBatchNorm(nn.Module):
    """Max pooling, 3x3 with stride 2, of what `nn.BatchNorm` makes of its input.

    In each channel the output rises with the input, or falls where the scale is negative. So the
    largest outputs are those of the largest inputs, or smallest, and it is enough to normalise
    these: the statistics are of the whole input, but no normalised copy of it is ever made. The
    values are those of the two layers one after the other. A gradient goes to the largest input,
    where the two layers give it to the first of those whose outputs rounding makes equal.

    Attributes:
      momentum: The momentum of the moving averages.
      epsilon: What is added to the variance.
      dtype: The dtype of the output.
    """

    momentum: float
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        """Normalises and pools x (N, H, W, C) to (N, H / 2, W / 2, C), rounded up.

        Args:
          x: The input.
          use_running_average: Whether the moving averages normalise, and stay as they are.
        """
        shape = (x.shape[-1],)
        average_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        average_var = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        sign = jnp.where(scale < 0, -1.0, 1.0)
        x = x * _to_channels(sign).astype(x.dtype)
        if use_running_average:
            mean, var = sign * average_mean.value, average_var.value
        else:
            wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            mean, square = wide.mean((0, 1, 2)), jnp.square(wide).mean((0, 1, 2))
            var = jnp.maximum(0.0, square - jnp.square(mean))
            if not self.is_initializing():
                for average, new in ((average_mean, sign * mean), (average_var, var)):
                    average.value = self.momentum * average.value + (1 - self.momentum) * new
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        factor = jax.lax.rsqrt(var + self.epsilon) * (sign * scale)
        y = (x - _to_channels(mean)) * _to_channels(factor) + _to_channels(bias)
        return y.astype(self.dtype)


def _to_channels(x: jax.Array) -> jax.Array:
    """An array (C) in the shape (1, 1, 1, C)."""
    return x[None, None, None]
