"""Reads of many files or parts of them: one after another while that is quick, or by threads."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

QUICK_SECONDS = 2e-4  # The mean time up to which reads follow one another.
# What they may take beyond that over several calls: another thread may hold Python's lock for 5 ms.
SLACK_SECONDS = 2e-2
SLOW_CALLS = 16  # The number of calls that are left to the threads after a slow one.

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


class Reads:
    """Reads of what lies on one kind of storage.

    What the system has in memory is read in some microseconds, for which threads that take turns
    on Python's lock need ten times as long. They help where reads wait for a disk or a network.

    Args:
      threads: The number of reads at a time where they are slow.
      remote: Whether all reads are slow, as those over a network are.

    Attributes:
      pool: The threads.
    """

    def __init__(self, threads: int, *, remote: bool = False):
        self.pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._remote = remote
        self._slow_calls = 0  # The number of calls that are still left to the threads.
        self._late = 0.0  # The seconds by which reads were not quick.

    def map(self, read: Callable[[_Item], _Found], items: Sequence[_Item]) -> list[_Found]:
        """What a function reads of each item, in their order; an error of the function is raised.

        Args:
          read: The function, which several threads may call at once.
          items: What to read.
        """
        found = [] if self._remote else self._one_by_one(read, items)
        rest = items[len(found) :]
        # A task for each item would take as long as a short read of a disk.
        few = 1 if self._remote else max(1, -(-len(rest) // (2 * self._threads)))
        parts = [rest[k : k + few] for k in range(0, len(rest), few)]
        made = self.pool.map(lambda part: [*map(read, part)], parts)
        return [*found, *itertools.chain.from_iterable(made)]

    def _one_by_one(self, read: Callable[[_Item], _Found], items: Sequence[_Item]) -> list[_Found]:
        """What is read of the first items, of all of them where that is quick."""
        found: list[_Found] = []
        if self._slow_calls > 0:
            self._slow_calls -= 1
            return found
        before, begin = self._late, time.perf_counter()
        for item in items:
            found.append(read(item))
            spent = time.perf_counter() - begin - QUICK_SECONDS * len(found)
            self._late = max(0.0, before + spent)
            if self._late > SLACK_SECONDS:
                self._slow_calls, self._late = SLOW_CALLS, 0.0
                break
        return found
