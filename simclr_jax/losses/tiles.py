"""Tiles of columns, of which a block of rows of logits has one in memory at a time.

Shapes: N images of the global batch, V = 2 views; B images of a block of rows, C images of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# The bytes of a tile. It and what is computed from it fit the caches of a processor or of a GPU,
# and a TPU core's own memory.
TILE_BYTES = 2**23


def choose_columns(rows: int) -> int:
    """The number of columns of a tile with a number of rows that are fast, in float32; at least 2.

    >>> choose_columns(1024)
    2048
    """
    return max(2, TILE_BYTES // (4 * rows))


def count_tiles(images: int, block_columns: int | None) -> int:
    """The number of equal tiles of columns that a block of rows is divided into.

    It is the smallest that makes them as small as asked, unless that is more than twice as many as
    unequal ones would be. Then it is the largest below.

    Args:
      images: The number of images whose columns are divided. Each has two columns of logits.
      block_columns: The largest number of columns of a tile, at least 2; None: all.

    Returns:
      A divisor of `images`.

    Raises:
      ValueError: `block_columns` is less than 2, the columns of one image.

    >>> count_tiles(4096, block_columns=1024), count_tiles(4096, None)
    (8, 1)
    >>> count_tiles(10, block_columns=7), count_tiles(127, block_columns=64)
    (5, 1)
    """
    if block_columns is None:
        return 1
    if block_columns < 2:
        raise ValueError(f"block_columns must be at least 2, got {block_columns}")
    fewest = -(-2 * images // block_columns)
    divisors = [count for count in range(1, min(2 * fewest, images) + 1) if images % count == 0]
    return next((count for count in divisors if count >= fewest), divisors[-1])


class LogSumExp(NamedTuple):
    """The logsumexp of numbers of which some are known at a time.

    Attributes:
      largest: The largest number so far, finite.
      total: The sum of the exponentials of all so far, each divided by that of the largest.
    """

    largest: jax.Array
    total: jax.Array

    def update(self, x: jax.Array, axis: int | tuple[int, ...]) -> LogSumExp:
        """The same with more numbers, along some axes of an array."""
        largest = jnp.maximum(self.largest, jnp.max(x, axis=axis))
        # XLA may compute x again and round it to another number, so of huge numbers the largest
        # differs from itself. Its exponential is 1 nevertheless, and no other one is larger.
        shifted = jnp.minimum(x - jnp.expand_dims(largest, axis), 0)
        total = self.total * jnp.exp(self.largest - largest) + jnp.sum(jnp.exp(shifted), axis=axis)
        some = largest > jnp.finfo(largest.dtype).min
        return LogSumExp(largest, jnp.where(some, jnp.maximum(total, 1), total))

    def value(self) -> jax.Array:
        """The logsumexp; -inf where there were no finite numbers."""
        return self.largest + jnp.log(self.total)


def nothing(like: jax.Array) -> LogSumExp:
    """The logsumexp of no numbers, in the shape and the dtype of an array."""
    return LogSumExp(jnp.full_like(like, jnp.finfo(like.dtype).min), jnp.zeros_like(like))


class Tile(NamedTuple):
    """A tile of columns.

    Attributes:
      start: The number of its first image, an int scalar.
      images: The number of its images.
    """

    start: jax.Array
    images: int

    def of(self, x_VN: jax.Array) -> jax.Array:
        """The part (V, C, …) of an array (V, N, …)."""
        return jax.lax.dynamic_slice_in_dim(x_VN, self.start, self.images, axis=1)

    def without_own(self, logits_VBVC: jax.Array, image_B: jax.Array) -> jax.Array:
        """The logits with -inf at both views of each row's image, which leaves the negatives."""
        own_BC = image_B[:, None] == self.start + jnp.arange(self.images)[None, :]
        return jnp.where(own_BC[None, :, None], -jnp.inf, logits_VBVC)


def over(update: Callable[[Any, Tile], Any], found: Any, images: int, count: int) -> Any:
    """What a function makes of a value by one tile after another.

    Args:
      update: A function from the value so far and a tile to the next value.
      found: The first value.
      images: The number N of all images.
      count: The number of tiles, a divisor of `images`.
    """
    if count == 1:
        return update(found, Tile(jnp.int32(0), images))
    own = images // count
    return jax.lax.fori_loop(
        0, count, lambda number, found: update(found, Tile(number * own, own)), found
    )
