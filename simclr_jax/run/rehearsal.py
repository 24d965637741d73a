"""A few steps of a run, which are timed and thrown away: what a run takes, without the run."""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.config import inputs
from simclr_jax.config.parts import Parts
from simclr_jax.data.order import Picked
from simclr_jax.data.pipeline import Batches
from simclr_jax.data.readable import Readable
from simclr_jax.run import progress
from simclr_jax.state import TrainState

STEPS = 3  # The number of steps that are timed alone, after the first one.
SECONDS = 4.0  # The length in seconds of each timing of the input.
_SKIPPED = 2  # The number of batches that a pipeline makes before it is timed.
_LEAST, _MOST = 3, 50  # The numbers of batches or steps that are timed together.
_ROWS = 256  # The largest number of images of a batch of the input that is timed alone.
_AGAIN = 2000  # The largest number of such batches of images that are known.
_AHEAD = 300  # More batches than a pipeline makes ahead, so that it has work until the end.

Batch = Mapping[str, np.ndarray]
Step = Callable[[TrainState, Any], tuple[TrainState, Any]]


class Memory(NamedTuple):
    """The bytes that a train step takes on each device, as the compiler counts them.

    Attributes:
      held: Those of its arguments and results: the state, the batch and the objective's arrays.
      temporary: Those of what lives within the step alone, most of it activations.
      next_batch: Those of the next batch, which is copied while the step runs.
    """

    held: int
    temporary: int
    next_batch: int

    @classmethod
    def of(cls, program: jax.stages.Compiled, next_batch: int) -> "Memory | None":
        """The memory of a compiled step; None where the compiler does not tell.

        Args:
          program: The compiled step.
          next_batch: The bytes of a device's part of a batch.
        """
        found: Any = program.memory_analysis()
        if found is None:
            return None
        results = found.output_size_in_bytes - found.alias_size_in_bytes
        return cls(found.argument_size_in_bytes + results, found.temp_size_in_bytes, next_batch)

    @property
    def total(self) -> int:
        """All bytes together."""
        return self.held + self.temporary + self.next_batch


class Feed(NamedTuple):
    """The images in a second that the input makes while no step runs.

    They are those of all processes, each of which is taken to be as fast as this one.

    Attributes:
      first: The images in a second in the first epoch of a process, in which each is checked.
      later: Those of images that are known, whose files have just been read.
    """

    first: float
    later: float


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of a run have taken.

    Attributes:
      batch_size: The number of source images of a global batch.
      compile_seconds: The time to compile the train step, or to load it where it was kept.
      steps: The seconds of each step that was timed without any input beside it.
      feed: The images in a second of the input alone.
      together: The seconds of a step, of images that are known, while the next batches are made.
      shared: Whether the steps and the input share the cores of the host.
      memory: The memory of the step on each device; None: not known.
      kept_bytes: The bytes of decoded images that the input keeps in memory; 0: it keeps none.
    """

    batch_size: int
    compile_seconds: float
    steps: tuple[float, ...]
    feed: Feed
    together: float
    shared: bool
    memory: Memory | None
    kept_bytes: int

    @property
    def step_seconds(self) -> float:
        """The median of the seconds of a step alone."""
        return statistics.median(self.steps)

    @property
    def input_seconds(self) -> float:
        """The seconds in which the input alone makes a batch of images that are known."""
        return self.batch_size / self.feed.later

    @property
    def input_binds(self) -> bool:
        """Whether a batch takes longer to make than its step."""
        return self.input_seconds > self.step_seconds

    @property
    def first_epoch(self) -> float:
        """The seconds of a step in the first epoch of a process, by those of the two alone."""
        first = self.batch_size / self.feed.first
        if self.shared:
            return self.together + max(0.0, first - self.input_seconds)
        return max(self.together, first)

    def seconds(self, steps: int, examples: int) -> float:
        """The seconds that a process trains, without evaluations.

        Args:
          steps: The number of its steps.
          examples: The number of examples of an epoch.
        """
        first = min(steps, -(-examples // self.batch_size))
        return first * self.first_epoch + (steps - first) * self.together


def rehearse(
    config: FrozenConfigDict,
    built: Parts,
    source: Readable,
    state: TrainState,
    *,
    start: int = 0,
    seconds: float = SECONDS,
) -> Rehearsal:
    """Times a few steps of a run, and its input. All processes must call it together.

    Args:
      config: The config of the run; its counts must be known.
      built: The parts of the run.
      source: The images to train on.
      state: The state that the steps begin with, which is used up.
      start: The number of updates that led to the state.
      seconds: The length of each timing of the input; the steps take as long as they take.
    """
    rows = meshes.local_rows(built.mesh, config.train.batch_size)
    progress.note("timing the input alone")  # First, for then the most images are unread.
    fed, known = time_feed(config, source, rows=len(rows), seconds=seconds)
    progress.note("compiling the train step")
    batches = inputs.train_batches(config, source, rows=rows, start_step=start, stop_step=start + 1)
    with contextlib.closing(batches):
        batch = meshes.put(next(batches), built.mesh)
    step, compile_seconds, memory = compiled(built, state, batch)
    progress.note(f"timing {STEPS} steps alone")
    state, alone = time_steps(step, state, batch)
    each = max(statistics.median(alone), config.train.batch_size / fed.later)
    (count,) = processes.from_primary([round(min(_MOST, max(_LEAST, seconds / each)))])
    progress.note(f"timing {count} steps with their input")
    most = _SKIPPED + count + _AHEAD
    order = _again(known, most, config.train.batch_size, config.seed)
    batches = inputs.train_batches(
        config, source, rows=rows, start_step=0, stop_step=most, in_order=order
    )
    with contextlib.closing(batches):
        taken = itertools.islice(batches, _SKIPPED + count)
        together = time_together(step, state, taken, built.mesh)
    return Rehearsal(
        batch_size=config.train.batch_size,
        compile_seconds=compile_seconds,
        steps=alone,
        feed=fed,
        together=together,
        shared=meshes.platform(built.mesh) == "cpu",
        memory=memory,
        kept_bytes=source.kept_bytes,
    )


def compiled(
    built: Parts, state: TrainState, batch: Mapping[str, jax.Array]
) -> tuple[Step, float, Memory | None]:
    """Compiles the train step of a run for a batch.

    Args:
      built: The parts of the run.
      state: A state of the run.
      batch: A global batch, on the devices.

    Returns:
      The step (state, batch) → (state, metrics), which donates its state; the seconds that it took
      to compile; and the memory of a device that it takes.
    """
    began = time.monotonic()
    program = built.jitted.lower(state, batch, built.objective).compile()
    seconds = time.monotonic() - began
    next_batch = sum(array.nbytes for array in batch.values()) // built.mesh.size

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        return program(state, batch, built.objective)

    return step, seconds, Memory.of(program, next_batch)


def time_steps(
    step: Step, state: TrainState, batch: Mapping[str, jax.Array], count: int = STEPS
) -> tuple[TrainState, tuple[float, ...]]:
    """The state after some steps with the same batch, and the seconds of each but the first.

    Args:
      step: The compiled step.
      state: The state to begin with, which is used up.
      batch: A global batch, on the devices.
      count: The number of steps that are timed.
    """
    seconds = []
    for _ in range(count + 1):
        began = time.monotonic()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.monotonic() - began)
    return state, tuple(seconds[1:])


def time_together(step: Step, state: TrainState, batches: Iterator[Batch], mesh: Mesh) -> float:
    """The seconds of a step while the input makes the next batches, as in the training loop.

    Args:
      step: The train step.
      state: The state to begin with, which is used up.
      batches: This process's rows of the batches, more than `_SKIPPED`, whose steps are not timed.
        The pipeline that makes them has to go on after the last one, or it would be at rest in the
        last steps.
      mesh: The mesh of the devices.
    """
    running, began, number = None, 0.0, 0
    for number, batch in enumerate(batches, 1):
        state, metrics = step(state, meshes.put(batch, mesh))
        jax.block_until_ready(running)  # The host is one step ahead of the devices.
        running = metrics["loss"]
        if number == _SKIPPED:
            jax.block_until_ready(running)
            began = time.monotonic()
    jax.block_until_ready(running)
    return (time.monotonic() - began) / (number - _SKIPPED)


def time_feed(
    config: FrozenConfigDict, source: Readable, *, rows: int, seconds: float = SECONDS
) -> tuple[Feed, np.ndarray]:
    """Times the input while no step runs: images for the first time, then the same ones again.

    The first ones are those that have not been read yet, in the run's order. Where too few of them
    are left, all are taken for new ones, though their files have been read before.

    Args:
      config: The config of the run.
      source: The images to train on.
      rows: The number of images of a batch that this process makes.
      seconds: The length of each of the two timings, unless the images come to an end.

    Returns:
      The images in a second, and the indices of the images that are known now, int64.
    """
    size = max(1, min(rows, _ROWS, len(source) // (2 * (_SKIPPED + _LEAST))))
    index, _ = inputs.order(config, len(source), len(source)).batch(0)
    unread = index[~source.checked(index)]
    if len(unread) < size * (_SKIPPED + _LEAST):
        source.check_again()
        unread = index
    steps, own = len(unread) // size, np.arange(size)
    shape = steps, size
    order = Picked(np.resize(unread, shape), np.zeros(shape, np.int64), config.seed)
    batches = inputs.train_batches(
        config, source, rows=own, start_step=0, stop_step=steps, in_order=order
    )
    first, count = rate(batches, seconds)
    known = unread[: count * size]
    again = _again(known, _AGAIN, size, config.seed)
    batches = inputs.train_batches(
        config, source, rows=own, start_step=0, stop_step=_AGAIN, in_order=again
    )
    later, _ = rate(batches, seconds)
    assert later is not None
    hosts = jax.process_count()
    return Feed(hosts * (first or later), hosts * later), known


def rate(batches: Batches, seconds: float) -> tuple[float | None, int]:
    """The images in a second that a pipeline makes, which is closed then.

    Args:
      batches: The batches of this process. The first ones are not timed.
      seconds: The time after which no more batches are taken, once there are a few.

    Returns:
      The images in a second, None where there are too few batches; and how many were taken.
    """
    made, count, began, now = 0, 0, 0.0, 0.0
    with contextlib.closing(batches):
        for batch in batches:
            count, now = count + 1, time.monotonic()
            if count <= _SKIPPED:
                began = now
                continue
            made += len(batch["image"])
            if count >= _SKIPPED + _LEAST and now - began >= seconds:
                break
    return (made / max(now - began, 1e-9) if made else None), count


def _again(index: np.ndarray, steps: int, batch_size: int, seed: int) -> Picked:
    """Batches of the same images again and again, in their second epoch."""
    shape = steps, batch_size
    return Picked(np.resize(index, shape), np.ones(shape, np.int64), seed)
