"""Attention over channels: squeeze-and-excitation, and selective kernels.

Reference: Hu et al. 2017 (arXiv 1709.01507), Li et al. 2019 (arXiv 1903.06586).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

Module = Callable[..., Any]  # A Flax module, or a function that makes or applies one.


class SqueezeExcite(nn.Module):
    """A squeeze-excite layer, which scales channels by a gate of their global averages.

    Attributes:
      filters: The filters of the block; in a bottleneck, its inner width.
      ratio: The width of the hidden layer, as a fraction of `filters`.
      dtype: The dtype of the computation.

    Reference: Hu et al. 2017, Eq. 2-4 (arXiv 1709.01507).
    """

    filters: int
    ratio: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(
            nn.Conv,
            kernel_size=(1, 1),
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
            dtype=self.dtype,
        )
        gate = x.mean(axis=(1, 2), keepdims=True)
        gate = nn.relu(dense(max(1, int(self.filters * self.ratio)), name="reduce")(gate))
        gate = dense(x.shape[-1], name="expand")(gate)
        return x * nn.sigmoid(gate)


class SelectiveKernel(nn.Module):
    """A selective-kernel layer, which mixes two 3x3 convolutions by a softmax.

    The weights of the softmax come from the pooled sum of both convolutions.

    Attributes:
      filters: The number of output channels.
      stride: The stride of the convolutions.
      ratio: The width of the hidden layer, as a fraction of `filters`. The smallest width is 32.
      conv: The convolution, `conv_layer` with its dtype.
      norm: The batch norm, `batch_norm` with its mode and dtype.

    Reference: Li et al. 2019, section 3.1 (arXiv 1903.06586), with two 3x3 kernels as in SimCLRv2.
    """

    filters: int
    stride: int
    ratio: float
    conv: Module
    norm: Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        f = self.filters
        x = nn.relu(self.norm(name="bn")(self.conv(2 * f, 3, self.stride, name="conv")(x)))
        streams = x.reshape(*x.shape[:-1], 2, f)
        mix = streams.sum(axis=-2).mean(axis=(1, 2), keepdims=True)
        mix = self.conv(max(int(f * self.ratio), 32), 1, name="reduce")(mix)
        mix = nn.relu(self.norm(name="reduce_bn")(mix))
        mix = self.conv(2 * f, 1, name="expand")(mix)
        weights = jax.nn.softmax(mix.reshape(*mix.shape[:-1], 2, f), axis=-2)
        return (streams * weights).sum(axis=-2)
