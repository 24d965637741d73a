"""How long a run takes, by its first steps, and what would make it shorter."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from simclr_jax.config import overrides
from simclr_jax.run import progress, sizes
from simclr_jax.run.clock import Clock

MEASURED = 3  # The number of steps that are measured.
LONG_SECONDS = 6 * 3600.0  # The time above which a run on a CPU is said to take too long.
GOAL_SECONDS = 2 * 3600.0  # The time that the proposed length of such a run takes.
# The smaller networks and images that are proposed; of a key the first value that halves the work.
_SMALLER: dict[str, tuple[float, ...]] = {
    "data.image_size": (64, 32, 16),
    "model.depth": (18,),
    "model.width": (0.25, 0.125),
}


class Estimate:
    """Measures the first steps of a process, and tells once how long one takes.

    The first step, which compiles, only starts the clock.

    Args:
      tell: A function that is told the seconds a step takes.
      clock: The clock of the run.
    """

    def __init__(self, tell: Callable[[float], Any], clock: Clock):
        self._tell, self._clock = tell, clock
        self._ends: list[float] = []

    @classmethod
    def of_run(cls, config: ConfigDict, clock: Clock, *, start: int, total: int) -> "Estimate":
        """The estimate that is written to stderr for a run of `total` steps, from step `start`."""
        return cls(partial(say, config=config, start=start, total=total), clock)

    def step_done(self) -> None:
        """Notes that a step has ended."""
        if len(self._ends) > MEASURED:
            return
        self._ends.append(self._clock())
        if len(self._ends) > MEASURED:
            self._tell((self._ends[-1] - self._ends[0]) / MEASURED)


def say(seconds: float, *, config: ConfigDict, start: int, total: int) -> None:
    """Writes to stderr how long a run takes, and what would be shorter where a CPU takes too long.

    Args:
      seconds: The seconds a step takes.
      config: The config of the run; data.num_examples must be known.
      start: The number of steps that were done before. A run that goes on keeps its network.
      total: The number of steps of the run.
    """
    progress.note(in_words(seconds, start=start, total=total))
    if not start and seconds * total > LONG_SECONDS and jax.default_backend() == "cpu":
        progress.note(
            "on a CPU this run does not end within hours; in another --workdir it would be shorter "
            f"with any of {', '.join(shorter(config, seconds))}"
        )


def in_words(seconds: float, *, start: int, total: int) -> str:
    """How long a run takes from a step on, as text.

    >>> in_words(2.28, start=0, total=5000)
    'about 3 h 10 min for 5,000 steps (2.3 s a step, without evaluations)'
    >>> in_words(0.042, start=4000, total=5000)
    'about 42 s for the 1,000 steps that are left (0.042 s a step, without evaluations)'

    Args:
      seconds: The seconds a step takes.
      start: The number of steps that were done before.
      total: The number of steps of the run.
    """
    left = total - start
    steps = f"the {left:,} steps that are left" if start else f"{left:,} steps"
    each = f"{seconds:.2g}" if seconds < 10 else f"{seconds:,.0f}"
    return f"about {duration(seconds * left)} for {steps} ({each} s a step, without evaluations)"


def duration(seconds: float) -> str:
    """A number of seconds as '45 s', '12 min', '3 h 10 min' or '4 days 2 h'.

    >>> [duration(seconds) for seconds in (0.2, 45, 119.6, 3599, 7200, 3e5)]
    ['1 s', '45 s', '2 min', '1 h', '2 h', '3 days 11 h']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(minutes / 60)
    return f"{hours // 24} days" + (f" {hours % 24} h" if hours % 24 else "")


def shorter(config: ConfigDict, seconds: float) -> list[str]:
    """Overrides of which each makes a run much shorter, at most three.

    The last one gives it a length that takes about `GOAL_SECONDS`.

    Args:
      config: The config of the run; data.num_examples must be known.
      seconds: The seconds a step takes.
    """
    smaller = {}
    least = {"data.image_size": 32} if config.model.stem == "imagenet" else {}
    for key, values in _SMALLER.items():
        for value in values:
            is_smaller = least.get(key, 0) <= value < overrides.get(config, key)
            if is_smaller and 2 * work(overrides.changed(config, {key: value})) <= work(config):
                smaller[key] = f"--config.{key}={value}"
                break
    found = list(smaller.values())
    if config.data.name == "folder" and {"data.image_size", "model.width"} <= smaller.keys():
        found.insert(0, "--config=folder:size=small")
    return [*found[:2], f"{_length(config, seconds)} (about {duration(GOAL_SECONDS)})"]


def work(config: ConfigDict) -> float:
    """The work of the encoder for an image; see `sizes.work`."""
    model = config.model
    network = sizes.Network(config.data.image_size, model.depth, model.width, model.stem)
    return sizes.work(network)


def _length(config: ConfigDict, seconds: float) -> str:
    """The override of the length with which a run takes about `GOAL_SECONDS`."""
    steps = GOAL_SECONDS / seconds
    epochs = int(steps * config.train.batch_size / config.data.num_examples)
    if config.train.steps is None and epochs:
        return f"--config.train.epochs={epochs}"
    return f"--config.train.steps={max(1, int(steps))}"
