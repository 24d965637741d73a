"""The random numbers of all views of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simclr_jax.augment import draws


def draw(
    keys: Sequence[np.ndarray],
    height: np.ndarray,
    width: np.ndarray,
    views: draws.Views,
    names: Sequence[Sequence[str]],
) -> list[draws.Draw]:
    """Draws the random numbers of all views of N images.

    Where all views have the same operations they are drawn together, since most of the time of a
    small batch is that of the calls.

    Args:
      keys: The keys (N, 2) int64 of each view, from `keys.image_keys`.
      height: The heights of the images in pixels, (N,) int.
      width: The widths of the images in pixels, (N,) int.
      views: The settings of the augmentation.
      names: The names of the operations of each view that are drawn.

    Returns:
      The random numbers of each view, as `draws.draw` returns them.
    """
    count, n = len(keys), len(height)
    if len({(views.applied(view), tuple(names[view])) for view in range(count)}) > 1:
        return [draws.draw(keys[v], height, width, views, v, names[v]) for v in range(count)]
    high, wide = np.tile(height, count), np.tile(width, count)
    drawn = draws.draw(np.concatenate(keys), high, wide, views, 0, names[0])
    parts = [slice(view * n, (view + 1) * n) for view in range(count)]
    return [{name: _rows(values, part) for name, values in drawn.items()} for part in parts]


def _rows(values: Any, part: slice) -> Any:
    """Some rows of the arrays of a draw, which may be in named tuples."""
    if isinstance(values, tuple):
        return type(values)(*(_rows(each, part) for each in values))
    return values[part]
