"""Which example comes when: index arithmetic, free of state.

The examples of a run form one endless sequence, epoch after epoch, each epoch a permutation. The
batch of step k is rows k·B … (k+1)·B - 1 of it, so any step is reached in O(1), by any number of
processes.
"""

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
      n: number of examples.
      seed, epoch: what the order depends on.
      block: neighbouring records that stay near each other, for storage that reads best in
        sequence; 1 is an exact shuffle.
      window: blocks are shuffled as wholes, then the records inside every `window` of them.
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


def batch_examples(
    n: int,
    step: int,
    *,
    batch_size: int,
    rows: np.ndarray,
    seed: int,
    block: int = 1,
    window: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """(index, epoch), both int64 (len(rows),), of some rows of the global batch of `step`."""
    position = step * batch_size + np.asarray(rows, np.int64)
    epoch, offset = np.divmod(position, n)
    index = np.empty_like(position)
    for value in np.unique(epoch):
        here = epoch == value
        order = epoch_order(n, seed=seed, epoch=int(value), block=block, window=window)
        index[here] = order[offset[here]]
    return index, epoch
