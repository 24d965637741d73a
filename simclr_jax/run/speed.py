"""The speed of a run: its images per second, and the share of time that it waits for input."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from simclr_jax.run.clock import Clock

Batch = Mapping[str, np.ndarray]

LONG_ENOUGH = 30.0  # The seconds of training after which a wait is spoken of.
MUCH = 0.2  # The share of the time from which on a wait is spoken of.


class Speed:
    """Measures the steps of a process; the first one, which compiles, only starts the clock.

    Args:
      clock: The clock of the run.
      batch_size: The number of source images of a global batch.
      tell: A function that is told once, after `LONG_ENOUGH` seconds, the share of the time in
        which the devices waited for input, if that is `MUCH` or more.
    """

    def __init__(self, clock: Clock, *, batch_size: int, tell: Callable[[float], Any]):
        self._clock, self._batch_size, self._tell = clock, batch_size, tell
        self._began: float | None = None  # The end of the first step.
        self._since, self._steps = 0.0, 0  # The last row, and the steps since then.
        self._waited, self._waited_before = 0.0, 0.0  # Since the last row, and before it.
        self._told = False

    def next(self, batches: Iterator[Batch], running: jax.Array | None) -> Batch:
        """The next batch. The time in which no step runs meanwhile is a wait for input.

        Args:
          batches: The batches of this process.
          running: A result of the step that was started last; None: no step runs.

        Raises:
          StopIteration: There are no more batches.
        """
        asked, ended = self._clock(), None
        if running is not None and not running.is_ready():  # type: ignore[attr-defined]
            ended = _End(running, self._clock)
        with jax.profiler.TraceAnnotation("wait for input"):
            batch = next(batches)
        if self._began is not None:
            idle_since = asked if ended is None else ended.at
            self._waited += 0.0 if idle_since is None else self._clock() - idle_since
        return batch

    def step_done(self) -> None:
        """Counts a step that has ended."""
        if self._began is None:
            self._began = self._since = self._clock()
        else:
            self._steps += 1

    def row(self) -> dict[str, float | None]:
        """The numbers since the last call: None where no step was timed.

        Returns:
          "images_per_second", and "input_wait": the share of the time in which the devices of this
          process waited for input, 0 to 1.
        """
        if self._began is None or not self._steps:
            return {"images_per_second": None, "input_wait": None}
        now = self._clock()
        seconds = max(now - self._since, 1e-9)
        row: dict[str, float | None] = {
            "images_per_second": self._steps * self._batch_size / seconds,
            "input_wait": min(1.0, self._waited / seconds),
        }
        self._waited_before += self._waited
        self._since, self._steps, self._waited = now, 0, 0.0
        self._speak(now - self._began)
        return row

    def _speak(self, seconds: float) -> None:
        """Tells of a long wait, once."""
        share = self._waited_before / max(seconds, 1e-9)
        if not self._told and seconds >= LONG_ENOUGH and share >= MUCH:
            self._told = True
            self._tell(share)


class _End:
    """Notes the end of a step, in a thread that does not keep the process from ending.

    Args:
      running: A result of the step.
      clock: The clock of the run.

    Attributes:
      at: The time at which the step ended; None while it runs.
    """

    def __init__(self, running: jax.Array, clock: Clock):
        self.at: float | None = None
        self._running, self._clock = running, clock
        threading.Thread(target=self._wait, name="end of a step", daemon=True).start()

    def _wait(self) -> None:
        with contextlib.suppress(Exception):  # The loop raises it, when it fetches the result.
            jax.block_until_ready(self._running)
        self.at = self._clock()
