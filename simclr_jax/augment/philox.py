"""Philox, the generator of random numbers from a seed and a counter.

The numbers are those of TensorFlow's stateless operations with the algorithm 'philox'. They are
computed for many seeds at once, and depend on nothing else: not on the host, the version or the
number of threads.

Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", for Philox-4x32-10.
"""

from __future__ import annotations

import numpy as np

_MULTIPLIERS = np.array([0xCD9E8D57, 0xD2511F53], np.uint64)  # Of the third word and the first one.
_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)  # What each round adds to the key.
_ROUNDS = 10
_SCRAMBLER = np.array([0x3EC8F720, 0x02461E29], np.uint32)  # TensorFlow's key for seeds.
_HIGH, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def scramble(seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys and the first counters of seeds, as TensorFlow derives them.

    Args:
      seeds: The seeds (…, 2), int64.

    Returns:
      The keys (…, 2) and the counters (…, 4), uint32.
    """
    words = np.ascontiguousarray(seeds, "<i8").view("<u4")
    mixed = _rounds(words, np.broadcast_to(_SCRAMBLER, (*words.shape[:-1], 2)))
    counters = mixed.copy()
    counters[..., :2] = 0
    return mixed[..., :2], counters


def bits(keys: np.ndarray, counters: np.ndarray, count: int, *, start: int = 0) -> np.ndarray:
    """Random numbers of 32 bits.

    >>> keys, counters = scramble(np.array([[1, 2], [1, 2], [1, 3]]))
    >>> numbers = bits(keys, counters, 8)
    >>> bool((numbers[0] == numbers[1]).all()), bool((numbers[0] == numbers[2]).any())
    (True, False)
    >>> bool((bits(keys, counters, 4, start=4) == numbers[:, 4:]).all())
    True

    Args:
      keys: The keys (…, 2), from `scramble`.
      counters: The first counters (…, 4), from `scramble`.
      count: The number of random numbers for each key.
      start: The position of the first one among those of its key, a multiple of 4.

    Returns:
      The numbers (…, count), uint32.
    """
    blocks = -(-count // 4)
    each = np.repeat(counters[..., None, :], blocks, axis=-2)
    each[..., 0] += np.arange(start // 4, start // 4 + blocks, dtype=np.uint32)
    numbers = _rounds(each, keys[..., None, :])
    return numbers.reshape(*counters.shape[:-1], 4 * blocks)[..., :count]


def to_unit(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 32 random bits as float32 in [0, 1), by their lowest 23 bits, as TensorFlow does.

    >>> to_unit(np.array([0, 2**22, 2**23], np.uint32)).tolist()
    [0.0, 0.5, 0.0]
    """
    mantissa = numbers & np.uint32(0x7FFFFF)
    return (mantissa | np.uint32(0x3F800000)).view(np.float32) - np.float32(1.0)


def _rounds(counters: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Philox-4x32-10 of counters (…, 4) and keys (…, 2), uint32."""
    a, b, c, d = np.moveaxis(counters, -1, 0).astype(np.uint64)
    multiplied, added = np.stack([c, a]), np.stack([b, d])
    by_axis = (-1, *[1] * (counters.ndim - 1))
    multipliers = _MULTIPLIERS.reshape(by_axis)
    steps = (np.arange(_ROUNDS, dtype=np.uint64)[:, None] * _STEPS).reshape(_ROUNDS, *by_axis)
    for key in (np.moveaxis(keys, -1, 0) + steps) & _LOW:
        product = multiplied * multipliers
        multiplied = (product >> _HIGH ^ added ^ key)[::-1]
        added = product & _LOW
    return np.stack([multiplied[1], added[0], multiplied[0], added[1]], axis=-1).astype(np.uint32)
