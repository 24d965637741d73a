"""The watchdog of a run: a thread that notices when its steps have stopped."""

import logging
import os
import statistics
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from ml_collections import FrozenConfigDict

from simclr_jax.run.clock import Clock

MIN_SECONDS = 300.0  # The shortest time without a step that is reported.
REMEMBERED = 100  # The number of steps whose median duration is the usual one.
# The seconds within which a report is written, or a process that is to end does so without it.
REPORT_SECONDS = 30.0
STATUS = 3  # The exit status of a fault of the environment.

_log = logging.getLogger(__name__)


class Watchdog:
    """A context in which a standstill is reported, once, with the stack of every thread.

    A run stands still when no step has ended for `factor` times as long as usual, and for at least
    `MIN_SECONDS`. What does not count: the time before the first two steps have ended, for it
    includes compiling; the pauses of the clock; and the time in which the whole process was
    stopped.

    Args:
      factor: The number of usual steps without one that are a standstill.
      on_hang: 'report' a standstill in the log; 'exit' after that with status 3, so that whatever
        started the process can start it again; or 'ignore' it.
      clock: The clock of the run.
      end: The function that ends the process with a status, without waiting for its threads.
    """

    def __init__(
        self,
        *,
        factor: float,
        on_hang: str,
        clock: Clock,
        end: Callable[[int], Any] = os._exit,
    ):
        self._factor, self._on_hang = factor, on_hang
        self._clock, self._end = clock, end
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._since: float | None = None  # The end of the last step.
        self._stopped = 0.0  # The seconds since the last step in which the process was stopped.
        self._reported = False
        self._interval = MIN_SECONDS / 30  # The seconds between two checks.
        self._checked = clock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def of_run(cls, config: FrozenConfigDict, clock: Clock) -> "Watchdog":
        """The watchdog that a run's config asks for."""
        return cls(factor=config.train.hang_factor, on_hang=config.train.on_hang, clock=clock)

    def __enter__(self) -> "Watchdog":
        if self._on_hang != "ignore":
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def step_done(self) -> None:
        """Notes that a step has ended."""
        now = self._clock()
        if self._since is not None:
            self._durations.append(now - self._since - self._stopped)
        # In this order a check between the two sees a step that is too young, never too old.
        self._since = now
        self._stopped, self._reported = 0.0, False

    def check(self) -> None:
        """Reports a standstill that was not reported before. The thread calls this regularly."""
        now = self._clock()
        late = now - self._checked - self._interval
        self._checked = now
        if self._since is None or self._reported or not self._durations:
            return
        if late > self._interval:  # This thread was stopped, so the process was.
            self._stopped += late
        age = now - self._since - self._stopped
        usual = statistics.median(self._durations)
        if age > max(MIN_SECONDS, self._factor * usual):
            self._reported = True
            self._report(age, usual)

    def _watch(self) -> None:
        while not self._closed.wait(self._interval):
            self.check()

    def _report(self, age: float, usual: float) -> None:
        """Logs the stacks, and ends the process where that is asked for."""
        ends = self._on_hang == "exit"
        if ends:  # The log may be what stands still.
            late = threading.Timer(REPORT_SECONDS, self._end, (STATUS,))
            late.daemon = True
            late.start()
        _log.error(
            "no step has ended for %.0f s, where one usually takes %.3g s; each thread is at\n%s%s",
            age,
            usual,
            stacks(),
            f"\nended with status {STATUS}: the same command goes on from the newest checkpoint"
            if ends
            else "",
        )
        if ends:
            late.cancel()
            self._end(STATUS)


def stacks() -> str:
    """The stack of every thread but the one that asks, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame)).rstrip()}"
        for number, frame in sys._current_frames().items()
        if number != threading.get_ident()
    )
