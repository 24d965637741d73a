"""The clock of a run, which stands still while the run evaluates and saves."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
    """Tells the seconds that a run has spent on its steps, from an arbitrary start.

    Args:
      seconds: The function that gives the time in seconds.

    >>> now = [5.0]
    >>> clock = Clock(lambda: now[0])
    >>> with clock.pause():
    ...     now[0] += 100.0
    >>> now[0] += 2.0
    >>> clock()
    7.0
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic):
        self._seconds = seconds
        self._paused_at: float | None = None  # The begin of a pause that has not ended.
        self._paused = 0.0  # The seconds of all pauses that have ended.

    def __call__(self) -> float:
        paused_at = self._paused_at  # The watchdog asks in another thread.
        return (self._seconds() if paused_at is None else paused_at) - self._paused

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """A context whose time (of evaluation or saving) does not count."""
        self._paused_at = begin = self._seconds()
        try:
            yield
        finally:
            # In this order the clock is late between the two for another thread, never early.
            self._paused += self._seconds() - begin
            self._paused_at = None
