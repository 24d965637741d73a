"""Convolutions, and the matrix products that compute some of them faster on a CPU."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]


def conv_layer(filters: int, size: int, stride: int = 1, *, dtype: Any, name: str) -> nn.Conv:
    """A convolution without bias, with the padding of the authors' code.

    The padding only depends on the kernel's size k: (k-1)//2 pixels before and k//2 after. At
    stride 1 that is the padding SAME. At stride 2 and even image sizes SAME would shift the kernel
    by a pixel.

    Args:
      filters: The number of output channels.
      size: The height and the width of the kernel, in pixels.
      stride: The stride in both directions.
      dtype: The dtype of the computation.
      name: The name of the layer.
    """
    pad = ((size - 1) // 2, size // 2)
    return nn.Conv(
        filters,
        (size, size),
        strides=(stride, stride),
        padding=(pad, pad),
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
        conv_general_dilated=convolve,
        dtype=dtype,
        name=name,
    )


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, **options: Any
) -> jax.Array:
    """The convolution of `jax.lax.conv_general_dilated`, where a CPU has faster ways by those.

    Args:
      x: (N, H, W, C), the maps.
      kernel: (k, l, C, D), the kernel.
      strides: The strides in both directions.
      padding: The zeros before and after, in both directions.
      **options: Those arguments of `jax.lax.conv_general_dilated` that are not above, without
        dilation or groups.

    Returns:
      (N, H', W', D), in the dtype of x and the kernel.
    """

    def usual(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    shape, size = jax.eval_shape(usual, x, kernel).shape[1:3], kernel.shape[:2]
    if size == (1, 1) and max(strides) > 1 and not any(map(any, padding)):
        return lax.platform_dependent(x, kernel, cpu=partial(sampled, strides), default=usual)
    if max(shape) < min(size):
        way = partial(by_positions, shape, strides, padding)
        return lax.platform_dependent(x, kernel, cpu=way, default=usual)
    return usual(x, kernel)


def sampled(strides: Sequence[int], x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A strided convolution with a 1x1 kernel, as a product of the pixels that it sees.

    XLA's gradient to such a kernel takes four times as long on a CPU.
    """
    return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]


def by_positions(
    shape: tuple[int, int],
    strides: Sequence[int],
    padding: Padding,
    x: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    """A convolution to maps smaller than its kernel, as one product for each position.

    A product leaves out the part of the kernel that lies on the padding. XLA's convolutions of
    such maps and their gradients take up to 170 times as long on a CPU.

    Args:
      shape: (H', W'), the size of the result.
      strides: The strides in both directions.
      padding: The zeros before and after, in both directions.
      x: (N, H, W, C), the maps.
      kernel: (k, l, C, D), the kernel.
    """
    rows, columns = (
        [_overlap(place * stride - before, size, length) for place in range(places)]
        for places, stride, (before, _), size, length in zip(
            shape, strides, padding, kernel.shape[:2], x.shape[1:3], strict=True
        )
    )
    seen = ((x[:, r, c], kernel[k, m]) for r, k in rows for c, m in columns)
    results = [
        a.reshape(a.shape[0], math.prod(a.shape[1:])) @ b.reshape(-1, b.shape[-1]) for a, b in seen
    ]
    return jnp.stack(results, axis=1).reshape(x.shape[0], *shape, kernel.shape[-1])


def _overlap(begin: int, size: int, length: int) -> tuple[slice, slice]:
    """The pixels under a kernel, and the part of the kernel on them, in one direction.

    >>> _overlap(-1, 3, 2)
    (slice(0, 2, None), slice(1, 3, None))

    Args:
      begin: The pixel under the kernel's first value.
      size: The size of the kernel.
      length: The number of pixels.
    """
    first, end = max(begin, 0), min(begin + size, length)
    return slice(first, end), slice(first - begin, end - begin)
