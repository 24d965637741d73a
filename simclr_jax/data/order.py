"""Which example comes when: index arithmetic, free of state.

The examples of a run form one endless sequence, epoch after epoch, each epoch a permutation. The
batch of step k is rows k·B … (k+1)·B - 1 of it, so any step is reached in O(1), by any number of
processes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def permutation(n: int, *, seed: int, stream: int) -> np.ndarray:
    """A permutation (n,) int64 of range(n), a function of (seed, stream) alone.

    The argsort of Philox's raw 64-bit output: raw output is specified by the algorithm, whereas
    what `Generator.permutation` makes of it may change between NumPy releases.
    """
    raw = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)
    return np.argsort(raw, kind="stable")


@lru_cache(maxsize=4)
def epoch_order(n: int, *, seed: int, epoch: int, block: int = 1, window: int = 1) -> np.ndarray:
    """The order (n,) int64 of one epoch.

    Args:
      n: The number of examples.
      seed: The seed of the run.
      epoch: The number of the epoch, from 0.
      block: The number of neighbouring records that stay near each other, for storage that reads
        best in sequence; 1 is an exact shuffle.
      window: The number of blocks among whose records the epoch shuffles, once the blocks have
        been shuffled as wholes.
    """
    if block == 1:
        return permutation(n, seed=seed, stream=epoch)
    blocks = -(-n // block)
    raw = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(blocks + n)
    order = np.argsort(raw[:blocks], kind="stable")
    records = (order[:, None] * block + np.arange(block)).reshape(-1)
    records = records[records < n]
    # Sorting by (window, random) shuffles within each window and leaves the windows in place.
    return records[np.lexsort((raw[blocks:], np.arange(n) // (block * window)))]


@dataclass(frozen=True)
class Order:
    """The endless sequence of a run's examples, epoch after epoch, cut into batches.

    Attributes:
      examples: The number of examples of an epoch.
      batch_size: The number of examples of a global batch.
      seed: The seed of the epochs' orders, below 2³¹.
      block: See `epoch_order`.
      window: See `epoch_order`.
    """

    examples: int
    batch_size: int
    seed: int
    block: int = 1
    window: int = 1

    def batch(self, step: int, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The index and the epoch of each example of a batch, both int64.

        Args:
          step: The step of the batch, from 0.
          rows: Which rows of the global batch to return, ints (n,); all of them by default.
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
