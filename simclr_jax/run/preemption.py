"""Preemption: signals to stop, and the step at which several processes agree to stop.

The first signal asks for an end after the step under way. A second SIGTERM or SIGINT ends the
process at once.
"""

import contextlib
import ctypes
import os
import signal
import socket
import threading
import time
from types import TracebackType
from typing import Any

from jax.experimental import multihost_utils

from simclr_jax import processes
from simclr_jax.errors import PREEMPTED

# The signals of one who may not want to wait: a second one ends the process at once.
_ORDERS = (signal.SIGTERM, signal.SIGINT)
# The signals of a terminal that goes away, and of schedulers that give notice of the end.
_NOTICES = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# The seconds within which a second signal counts as the first, sent to the process group as well.
SAME_SECONDS = 1.0


class Preemption:
    """A context in which the first signal is a request to stop, not an end.

    Python runs a signal's handler only between two bytecode instructions, of which there may be
    none for minutes while a step runs or compiles. So a thread listens: it notices a signal when
    it comes, and can end the process then. Outside the main thread the context does nothing, for
    Python handles signals in the main thread only.

    Attributes:
      heard: Whether this process has received a signal. One of a terminal or a scheduler that is
        ignored from the start, as under nohup, stays ignored.
      unsaved: Whether the run has trained a step that a checkpoint would save.
    """

    def __init__(self) -> None:
        self.heard = False
        # The time of the first SIGTERM or SIGINT, by time.monotonic.
        self._ordered_at: float | None = None
        self.unsaved = False
        self._tell_jax: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is not threading.main_thread():
            return self
        if processes.several():
            self._tell_jax = _handler_of_jax()
        self._listener, self._signals = socket.socketpair()
        self._signals.setblocking(False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._previous_fd = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, lambda *_: None) for number in _signals()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._signals.close()
        self._thread.join()
        self._listener.close()

    def due(self, step: int) -> bool:
        """Whether to stop after update `step`.

        Every process has to ask at every step; all get the same answer.
        """
        if not processes.several():
            return self.heard
        if self._tell_jax is None:
            return not processes.all_have(not self.heard)
        return multihost_utils.reached_preemption_sync_point(step)

    def _listen(self) -> None:
        """Handles the signals, in a thread, until the context ends."""
        while number := self._listener.recv(1):
            name = signal.Signals(number[0]).name
            if number[0] in _ORDERS:
                if self._ordered_at is None:
                    self._ordered_at = time.monotonic()
                elif time.monotonic() - self._ordered_at > SAME_SECONDS:
                    _write(f"{name} again: stopped at once")
                    os._exit(128 + number[0])
            if self.heard or number[0] not in (*_ORDERS, *_NOTICES):
                continue
            self.heard = True
            if self._tell_jax is not None:
                self._tell_jax(int(signal.SIGTERM))
            elif not self.unsaved and not processes.several():
                _write(f"{name}: nothing was trained yet; run the same command again")
                os._exit(PREEMPTED)
            again = "once more" if number[0] in _ORDERS else "SIGTERM twice"
            _write(f"{name}: finishing the step and saving; {again} stops at once")


def _signals() -> list[signal.Signals]:
    """The signals to handle: nohup, for one, leaves SIGHUP ignored, and it stays so."""
    return [
        *_ORDERS,
        *(number for number in _NOTICES if signal.getsignal(number) is not signal.SIG_IGN),
    ]


def _write(line: str) -> None:
    """Writes a line to stderr without a buffer, for the process may end at once."""
    with contextlib.suppress(OSError):  # The terminal may be gone.
        os.write(2, f"\n{line}\n".encode())


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
