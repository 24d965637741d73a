"""Signals that are heard at once, whatever Python is busy with."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from types import FrameType, TracebackType
from typing import Any, Self

# The seconds within which a second signal counts as the first, sent to the process group as well.
SAME_SECONDS = 1.0
INTERRUPTED = 128 + signal.SIGINT  # The exit status after Ctrl-C, as shells have it.


class Listener:
    """A context in which a thread is told of signals when they come.

    Python runs a signal's handler only between two bytecode instructions, of which there may be
    none for minutes while a step runs or compiles. So a thread listens: it notices a signal when
    it comes, and can end the process then. Outside the main thread the context does nothing, for
    Python handles signals in the main thread only.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def numbers(self) -> Collection[signal.Signals]:
        """The signals to hear; with none the context does nothing."""
        raise NotImplementedError

    def hear(self, number: int) -> None:
        """Handles a signal at once, in the thread."""
        raise NotImplementedError

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal in the main thread, once Python gets to it there."""

    def __enter__(self) -> Self:
        self._numbers = numbers = self.numbers()
        if not numbers or threading.current_thread() is not threading.main_thread():
            return self
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._previous_fd = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._previous: dict[signal.Signals, Callable[..., Any] | int | None] = {}
        for number in numbers:
            self._previous[number] = signal.signal(number, self.handle)
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
        self._sender.close()
        self._thread.join()
        self._receiver.close()

    def _listen(self) -> None:
        """Passes the signals on, in a thread, until the context ends."""
        while number := self._receiver.recv(1):
            if number[0] in self._numbers:
                self.hear(number[0])


class Interruption(Listener):
    """A context in which Ctrl-C ends the process: with a line at once, and then with status 130.

    There is no KeyboardInterrupt. Libraries print one that comes while they are imported, lose one
    that comes in a callback, and may crash. Where SIGINT is ignored, as in a shell's background
    jobs, it stays so.

    Args:
      clean_up: The function that removes what is half written. A second Ctrl-C does not wait for
        it.
      also: Other signals that end the process likewise, with the exit status of each.
    """

    def __init__(
        self, clean_up: Callable[[], None], also: Mapping[signal.Signals, int] | None = None
    ) -> None:
        super().__init__()
        self._clean_up = clean_up
        self._status = {signal.SIGINT: INTERRUPTED, **(also or {})}
        self._heard_at: float | None = None  # By time.monotonic.

    def numbers(self) -> Collection[signal.Signals]:
        """SIGINT and the others, without those that are ignored."""
        return [each for each in self._status if signal.getsignal(each) is not signal.SIG_IGN]

    def hear(self, number: int) -> None:
        """Says that the process ends, and ends it."""
        now, status = time.monotonic(), self._status[signal.Signals(number)]
        if self._heard_at is None:
            self._heard_at = now
            write(f"{signal.Signals(number).name}: stopped")
            threading.Thread(target=self._end, args=(status,), daemon=True).start()
        elif now - self._heard_at > SAME_SECONDS:
            os._exit(status)

    def _end(self, status: int) -> None:
        """Ends the process as soon as nothing half written is left."""
        with contextlib.suppress(Exception):
            self._clean_up()
        with contextlib.suppress(Exception):  # The terminal may be gone.
            sys.stdout.flush()
        os._exit(status)


def write(line: str) -> None:
    """Writes a line to stderr without a buffer, for the process may end at once."""
    with contextlib.suppress(OSError):  # The terminal may be gone.
        os.write(2, f"\n{line}\n".encode())
