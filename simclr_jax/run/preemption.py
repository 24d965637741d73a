"""Preemption: signals to stop, and the step at which several processes agree to stop.

The first signal asks for an end after the step under way. A second SIGTERM or SIGINT ends the
process at once.
"""

import contextlib
import ctypes
import functools
import os
import signal
import threading
import time
from typing import Any, Self

from jax.experimental import multihost_utils

from simclr_jax import processes
from simclr_jax.errors import PREEMPTED
from simclr_jax.run import signals
from simclr_jax.run.signals import SAME_SECONDS, write
from simclr_jax.store import lock

# The signals of one who may not want to wait: a second one ends the process at once.
_ORDERS = (signal.SIGTERM, signal.SIGINT)
# The signals of a terminal that goes away, and of schedulers that give notice of the end.
_NOTICES = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Preemption(signals.Listener):
    """A context in which the first signal is a request to stop, not an end.

    Attributes:
      heard: Whether this process has received a signal. One of a terminal or a scheduler that is
        ignored from the start, as under nohup, stays ignored.
      unsaved: Whether the run has trained a step that a checkpoint would save.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard = False
        # The time of the first SIGTERM or SIGINT, by time.monotonic.
        self._ordered_at: float | None = None
        self.unsaved = False
        self._tell_jax: Any = None

    def __enter__(self) -> Self:
        if processes.several() and threading.current_thread() is threading.main_thread():
            self._tell_jax = _handler_of_jax()
        return super().__enter__()

    def numbers(self) -> list[signal.Signals]:
        """The signals to hear: nohup, for one, leaves SIGHUP ignored, and it stays so."""
        return [
            *_ORDERS,
            *(number for number in _NOTICES if signal.getsignal(number) is not signal.SIG_IGN),
        ]

    def due(self, step: int) -> bool:
        """Whether to stop after update `step`.

        Every process has to ask at every step; all get the same answer.
        """
        if not processes.several():
            return self.heard
        if self._tell_jax is None:
            return not processes.all_have(not self.heard)
        return multihost_utils.reached_preemption_sync_point(step)

    def hear(self, number: int) -> None:
        """Takes note of the first signal, and ends the process at a second order to stop."""
        name = signal.Signals(number).name
        if number in _ORDERS:
            if self._ordered_at is None:
                self._ordered_at = time.monotonic()
            elif time.monotonic() - self._ordered_at > SAME_SECONDS:
                write(f"{name} again: stopped at once")
                os._exit(128 + number)
        if self.heard:
            return
        self.heard = True
        if self._tell_jax is not None:
            self._tell_jax(int(signal.SIGTERM))
        elif not self.unsaved and not processes.several():
            write(f"{name}: nothing was trained yet; run the same command again")
            threading.Thread(target=_leave, daemon=True).start()
            return
        again = "once more" if number in _ORDERS else "SIGTERM twice"
        write(f"{name}: finishing the step and saving; {again} stops at once")


def _leave() -> None:
    """Ends a process that has nothing to save, as soon as its lock is no file any more."""
    with contextlib.suppress(Exception):
        lock.release_files()
    os._exit(PREEMPTED)


@functools.cache  # A second run of the process finds another handler there.
def _handler_of_jax() -> Any:
    """Takes JAX's handler of SIGTERM, which tells the other processes, out of its place.

    Returns:
      The handler, as a function of the signal; None: JAX has none.
    """
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    ignore = 1
    address = libc.signal(signal.SIGTERM, ignore)
    if address in (None, 0, ignore, ctypes.c_void_p(-1).value):
        return None
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(address)
