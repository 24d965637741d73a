"""The time from a command to its first step, and what it went to."""

from __future__ import annotations

import os
import time
from typing import Any

from etils import epy

from simclr_jax.run import progress

with epy.lazy_imports():
    import jax

# The names of what JAX tells.
_LOADED = "/jax/compilation_cache/cache_hits"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_runs = 0  # The number of runs that this process has begun.


class Startup:
    """Times the parts of a start, and tells of them when the first step has ended.

    It listens to JAX, which tells of each program that it compiles or loads.

    Args:
      seconds: The seconds since the command began.
    """

    def __init__(self, seconds: float):
        self._began = time.monotonic() - seconds
        self._since = self._began
        self._parts: dict[str, float] = {}
        self._loaded = self._programs = 0
        self._compiling = 0.0
        self._listens = True
        jax.monitoring.register_event_listener(self._on_event)
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    @classmethod
    def of_process(cls) -> Startup:
        """The start of the first run of this process, or of a later one, which begins now."""
        global _runs
        _runs += 1
        return cls(process_seconds() if _runs == 1 else 0.0)

    def done(self, part: str) -> None:
        """Ends a part of the start, which has taken the time since the part before."""
        now = time.monotonic()
        self._parts[part] = now - self._since
        self._since = now

    def seconds(self) -> float:
        """The seconds since the command began."""
        return time.monotonic() - self._began

    def step_done(self) -> None:
        """Writes the line of the start to stderr when the first step has ended."""
        if self._listens:
            self.done("the first step")
            self._listens = False
            progress.note(self.in_words())

    def in_words(self) -> str:
        """What the start has taken, as text."""
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._parts.items())
        return (
            f"the first step ended {self._since - self._began:.1f} s after the command began: "
            f"{parts}; {self._compiling:.1f} s of it for {self._programs} programs, of which "
            f"{self._loaded} were kept from before"
        )

    def _on_event(self, event: str, **_: Any) -> None:
        self._loaded += self._listens and event == _LOADED

    def _on_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if self._listens and event == _COMPILED:  # Loading one counts as well.
            self._programs += 1
            self._compiling += duration_secs


def process_seconds() -> float:
    """The seconds since this process began; 0 where the system does not tell."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
