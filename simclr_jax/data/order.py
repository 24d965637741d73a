"""The order of examples in a run, as a pure function of the seed and the step.

The examples of a run form an endless sequence of epochs, each of them a permutation of the dataset.
The batch of step k is the elements k·B to (k+1)·B - 1 of the sequence. So a resumed run computes
the batch of any step without computing those before it, with any number of processes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def permutation(n: int, *, seed: int, stream: int) -> np.ndarray:
    """A random permutation of range(n), a function of (seed, stream) alone.

    It is the argsort of the raw 64-bit output of Philox. The algorithm specifies the raw output,
    whereas `Generator.permutation` may change between NumPy releases.

    Args:
      n: The number of elements.
      seed: The seed, from 0 and below 2⁶⁴.
      stream: The number of the permutation among those of the seed, from 0 and below 2⁶⁴.

    Returns:
      The permutation (n,) int64.

    >>> permutation(6, seed=0, stream=0), permutation(6, seed=0, stream=1)
    (array([0, 2, 1, 5, 4, 3]), array([5, 3, 2, 4, 1, 0]))
    """
    raw = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)
    return np.argsort(raw, kind="stable")


@lru_cache(maxsize=4)
def epoch_order(n: int, *, seed: int, epoch: int, block: int = 1, window: int = 1) -> np.ndarray:
    """The order of the examples in one epoch.

    Args:
      n: The number of examples.
      seed: The seed of the run, below 2³¹.
      epoch: The number of the epoch, from 0.
      block: The number of neighbouring records that stay near each other, for storage that is
        fastest when read in sequence. With 1 the order is a uniform shuffle.
      window: The number of blocks in a window. The order of the blocks is shuffled first; then the
        records of each window are shuffled.

    Returns:
      The indices of the examples (n,) int64.

    >>> epoch_order(8, seed=0, epoch=0, block=4, window=1)  # Records 0-3 and 4-7 stay together.
    array([0, 3, 2, 1, 7, 6, 4, 5])
    """
    if block == 1:
        return permutation(n, seed=seed, stream=epoch)
    blocks = -(-n // block)
    raw = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(blocks + n)
    order = np.argsort(raw[:blocks], kind="stable")
    records = (order[:, None] * block + np.arange(block)).reshape(-1)
    records = records[records < n]
    # Sorting by (window, random number) shuffles the records within each window.
    return records[np.lexsort((raw[blocks:], np.arange(n) // (block * window)))]


@dataclass(frozen=True)
class Order:
    """The endless sequence of a run's examples, epoch after epoch, divided into batches.

    Attributes:
      examples: The number of examples of an epoch.
      batch_size: The number of examples of a global batch.
      seed: The seed of the run, below 2³¹.
      block: The number of neighbouring records that stay near each other; see `epoch_order`.
      window: The number of blocks in a window; see `epoch_order`.

    >>> Order(examples=3, batch_size=2, seed=0).batch(step=1)
    (array([1, 2]), array([0, 1]))
    """

    examples: int
    batch_size: int
    seed: int
    block: int = 1
    window: int = 1

    def batch(self, step: int, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The examples of a batch.

        Args:
          step: The step of the batch, from 0.
          rows: The rows of the global batch to return, (n,) int. The default is all rows.

        Returns:
          The index in the dataset and the epoch of each example, both (n,) int64.
        """
        rows = np.arange(self.batch_size) if rows is None else np.asarray(rows, np.int64)
        epoch, offset = np.divmod(step * self.batch_size + rows, self.examples)
        index = np.empty_like(epoch)
        for number in np.unique(epoch):
            order = epoch_order(
                self.examples, seed=self.seed, epoch=int(number), block=self.block,
                window=self.window,
            )  # fmt: skip
            index[epoch == number] = order[offset[epoch == number]]
        return index, epoch


@dataclass(frozen=True)
class Picked:
    """Batches of examples that are named one by one, to look at; a run takes an `Order`.

    Attributes:
      index: The index in the dataset of each example, by the step of its batch, (steps, n) int.
      epoch: The epoch of each, (steps, n) int.
      seed: The seed of the run, below 2³¹.

    >>> Picked(np.array([[7, 5]]), np.array([[0, 3]]), seed=0).batch(0, np.array([1]))
    (array([5]), array([3]))
    """

    index: np.ndarray
    epoch: np.ndarray
    seed: int

    def batch(self, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The index and the epoch of some rows of a batch, both (n,) int64; see `Order.batch`."""
        return self.index[step][rows].astype(np.int64), self.epoch[step][rows].astype(np.int64)
