"""Passes over features that lie in blocks of rows on the devices, or are read block by block."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax.data.source import is_labelled
from simclr_jax.evals.features import Features

LOGITS_BYTES = 2**26  # The bytes of a block's logits on a device.
ROWS_BYTES = 2**28  # The bytes of a block's features on a device.
HELD_BYTES = 2**31  # The bytes of features that are held on a device whose memory is not known.

# Rows: x (n, F) float32, label (n,) int32 or (n, C) int8, weight (n,) float32.
Block = dict[str, jax.Array]


class Rows:
    """Labelled features in blocks of rows, split over the devices of a mesh.

    The blocks are held on the devices where they fit; otherwise each pass reads them anew.

    Args:
      parts: The features of one split or several, whose rows follow each other. Those without a
        label have no part in anything.
      columns: The number of logits of a row, K·C, which bounds the rows of a block.
      mesh: The mesh of the devices.
      held_bytes: The bytes of features that a device can hold; None: a half of its free memory.

    Attributes:
      labels: The labels of all parts, (n,) int32 or (n, C) int8.
      labelled: Which of them have a label, bools (n,).
      dim: The width F of the features.
    """

    def __init__(
        self,
        parts: Sequence[Features],
        *,
        columns: int,
        mesh: Mesh,
        held_bytes: int | None = None,
    ):
        self.labels = np.concatenate([part.labels for part in parts])
        self.labelled = is_labelled(self.labels)
        self.dim = parts[0].x.shape[1]
        self.mesh = mesh
        self._parts = parts
        share = -(-len(self.labels) // mesh.size)  # The rows of a device.
        most = min(LOGITS_BYTES // (4 * columns), ROWS_BYTES // (4 * self.dim))
        blocks = -(-share // max(1, most))
        self._size = mesh.size * -(-share // blocks)
        held = on_each(mesh) if held_bytes is None else held_bytes
        self._held: dict[int, Block] | None = {} if 4 * share * self.dim <= held else None

    def total(self, function: Callable[..., Any], weights: np.ndarray, *arguments: Any) -> Any:
        """The sum over all blocks of a function of a block.

        Args:
          function: A function of a block, compiled, that returns arrays.
          weights: The weight of each row (n,), which is the block's "weight".
          *arguments: The function's other arguments.
        """
        found: Any = None
        for block in self.blocks(np.where(self.labelled, weights, 0)):
            before, found = found, function(block, *arguments)
            if before is not None:
                found = jax.tree.map(jnp.add, before, found)
                # Without this, all blocks would be copied to the devices before the first is used.
                jax.block_until_ready(before)
        return found

    def blocks(self, weights: np.ndarray) -> Iterator[Block]:
        """Yields all rows in their order, padded at the end with rows of weight 0.

        Args:
          weights: The weight of each row (n,).
        """
        local = meshes.local_rows(self.mesh, self._size)
        for start in range(0, len(self.labels), self._size):
            index = start + local
            block = (self._held or {}).get(start) or meshes.put(self._read(index), self.mesh)
            if self._held is not None:
                self._held[start] = block
            yield block | meshes.put({"weight": _padded(weights, index)}, self.mesh)

    def _read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The features and labels of rows; zeros for those past the end."""
        x = np.zeros((len(index), self.dim), np.float32)
        offset = 0
        for part in self._parts:
            here = (index >= offset) & (index < offset + len(part.x))
            if here.any():
                x[here] = part.x[index[here] - offset]
            offset += len(part.x)
        one = self.labels.ndim == 1  # Of several, -1 tells which do not count.
        labels = np.maximum(self.labels, 0) if one else self.labels
        return {"x": x, "label": _padded(labels, index)}


def _padded(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The values at some positions; zeros for those past the end."""
    inside = index < len(values)
    dtype = values.dtype if values.dtype in (np.int32, np.int8) else np.float32
    found = values[np.where(inside, index, 0)]
    found[~inside] = 0
    return found.astype(dtype)


def on_each(mesh: Mesh) -> int:
    """The bytes of features that can be held on each device of a mesh."""
    found = mesh.local_devices[0].memory_stats()
    if not found or "bytes_limit" not in found:
        return HELD_BYTES
    return (found["bytes_limit"] - found["bytes_in_use"]) // 2
