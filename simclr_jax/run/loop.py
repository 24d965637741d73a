"""The training loop."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.config.parts import Intervals, Step
from simclr_jax.data.order import Order
from simclr_jax.errors import DivergedError, PreemptedError, one_line
from simclr_jax.objectives import Metrics
from simclr_jax.run.clock import Clock
from simclr_jax.run.health import Health
from simclr_jax.run.preemption import Preemption
from simclr_jax.run.speed import Speed
from simclr_jax.run.workdir import Workdir
from simclr_jax.state import TrainState
from simclr_jax.store import files
from simclr_jax.store.rows import Row, as_json

Scores = dict[str, float]
# (state, a function that says whether to give up) to its scores, or None where it gave up.
Evaluate = Callable[[TrainState, Callable[[], bool]], Scores | None]


@dataclass
class Loop:
    """Trains a run to its end.

    Attributes:
      step: The compiled train step, (state, batch) → (state, metrics).
      batches: This process's rows of the batches, from the first step to train on.
      mesh: The mesh that the batches are put on.
      evaluate: The evaluation of a state; it returns None where its second argument returned True.
      intervals: The steps at which the run evaluates, saves, logs and ends.
      order: The order of the examples.
      name_of: The function from the index of an example to its name.
      workdir: The folder of the run, and the files in it.
      health: The judge of every row.
      preemption: The signals that ask the run to stop.
      clock: The clock of the run, which the loop stops while it evaluates and saves.
      measure: What is measured of the update of a state by a batch, (state, batch) → scalars.
      on_step: Functions to call when a step has ended.
      on_wait: A function that is told, once, by how much the devices wait for input; see `Speed`.
      last: The last row; empty before the first one.
    """

    step: Step
    batches: Iterator[Mapping[str, np.ndarray]]
    mesh: Mesh
    evaluate: Evaluate
    intervals: Intervals
    order: Order
    name_of: Callable[[int], str]
    workdir: Workdir
    health: Health
    preemption: Preemption
    clock: Clock = field(default_factory=Clock)
    measure: Callable[[TrainState, Mapping[str, jax.Array]], Metrics] = lambda state, batch: {}
    on_step: Sequence[Callable[[], None]] = ()
    on_wait: Callable[[float], None] = lambda share: None
    last: Row = field(default_factory=dict, init=False)
    _pending: dict[str, jax.Array] | None = field(default=None, init=False)
    _speed: Speed = field(init=False)

    def __post_init__(self) -> None:
        self._speed = Speed(self.clock, batch_size=self.order.batch_size, tell=self.on_wait)

    def train(self, start: int, state: TrainState, rows: list[Row]) -> Row:
        """Trains from a state to the end.

        The order is fixed: evaluate if due, save if due, next batch, step, log the previous step.
        So the host is always one step ahead of the device, and the state in a checkpoint has
        always been checked and logged.

        Args:
          start: The number of updates that led to the state.
          state: The state to train from.
          rows: The rows of the run up to that step.

        Returns:
          The last row.

        Raises:
          PreemptedError: A signal asked the run to stop; its state is saved.
          DivergedError: A loss, a gradient or a state is not finite.
        """
        self._evaluate_again(start, state, rows)
        for step in range(start, self.intervals.total + 1):
            stop, scores = self.preemption.due(step), None
            to_evaluate = step > start and self.intervals.evaluates(step)
            if to_evaluate and not stop:
                scores = self._scores(state)
                stop = scores is None
            if step > start and (stop or self.intervals.saves(step)):
                self._log_previous(step, scores, always=to_evaluate)
                with self.clock.pause():
                    self.workdir.save(step, state, scores)
            if stop:
                self._stop(step)
            if step == self.intervals.total:
                break
            with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                state, metrics = self._update(step + 1, state)
            self._log_previous(step, scores, always=to_evaluate)
            self._pending = metrics
            self.workdir.checkpoints.raise_failure()
        return self.last

    def _update(self, step: int, state: TrainState) -> tuple[TrainState, Metrics]:
        """Starts update `step` of a state, which is measured before it where that is due.

        No name keeps the batch: the device frees it after the step, before an evaluation.
        """
        batch = meshes.put(self._next_batch(), self.mesh)
        measured: Metrics = {}
        if self.intervals.measures(step):
            jax.block_until_ready(state)  # The step that still runs counts as training.
            with self.clock.pause():
                measured = jax.block_until_ready(self.measure(state, batch))
        state, metrics = self.step(state, batch)
        return state, {**metrics, **measured}

    def _next_batch(self) -> Mapping[str, np.ndarray]:
        """The next batch, for which devices that have ended the last step wait."""
        running = None if self._pending is None else self._pending["finite"]
        return self._speed.next(self.batches, running)

    def _scores(self, state: TrainState) -> Scores | None:
        """The scores of a state; None where a signal asked the run to stop meanwhile."""
        jax.block_until_ready(state)  # The step that still runs counts as training.
        with self.clock.pause():
            return self.evaluate(state, lambda: self.preemption.heard and not processes.several())

    def _log_previous(self, step: int, scores: Scores | None, *, always: bool) -> None:
        """Fetches, judges and logs the row of `step`, unless that is done already."""
        if self._pending is None:
            return
        epoch = step * self.order.batch_size / self.order.examples
        row: Row = {"step": step, "epoch": epoch}
        row |= {key: float(value) for key, value in self._pending.items()} | (scores or {})
        self._pending, finite = None, bool(row.pop("finite"))
        self._judge(row, finite=finite)
        self.preemption.unsaved = True
        self._speed.step_done()
        for step_done in self.on_step:
            step_done()
        if self.health.may_skip:
            row["skipped_updates"] = self.health.skipped
        if always or not finite or self.intervals.logs(step):
            row |= self._speed.row()
            self.workdir.log.write(row)
        self.last = row

    def _judge(self, row: Row, *, finite: bool) -> None:
        """Judges a row, and writes down the images of a step that is not finite."""
        try:
            healthy = self.health.judge(row, finite=finite)
        except DivergedError as error:
            raise DivergedError(
                f"{error}; the checkpoints before it are kept, and its images are "
                f"{self._listed(row)}. Try a lower optim.lr or a longer optim.warmup_epochs"
            ) from error
        if not healthy:
            self._listed(row)

    def _listed(self, row: Row) -> str:
        """Writes WORKDIR/nonfinite/STEP.json: the row, the last finite row, the batch's images.

        Returns:
          The end of a sentence about the images: where they are listed, or why they are not.
        """
        folder = self.workdir.root / "nonfinite"
        if not processes.is_primary():
            return f"listed in {folder.parent}"
        index, epoch = self.order.batch(row["step"] - 1)
        examples = [
            {"index": i, "epoch": e, "name": self.name_of(i)}
            for i, e in zip(index.tolist(), epoch.tolist(), strict=True)
        ]
        content = {
            "row": as_json(row),
            "last_finite_row": as_json(self.health.last),
            "examples": examples,
        }
        path = folder / f"{row['step']}.json"
        try:
            folder.mkdir(exist_ok=True)
            files.write_json(path, content, indent=1)
        except Exception as error:  # Buckets raise many kinds; the divergence matters more.
            return f"not listed ({one_line(error, 200)})"
        return f"listed in {path}"

    def _evaluate_again(self, start: int, state: TrainState, rows: list[Row]) -> None:
        """Evaluates the restored state where the run was stopped before it could."""
        row: Row = rows[-1] if rows else {"step": 0}
        row = {key: math.nan if value is None else value for key, value in row.items()}
        missing = row["step"] == start > 0 and "eval_loss" not in row
        missing = missing and self.intervals.evaluates(start)
        if not processes.all_have(missing):
            return
        scores = self._scores(state)
        if scores is not None:
            self.last = row | scores
            self._judge(self.last, finite=True)
            self.workdir.checkpoints.remember(start, scores)
            self.workdir.log.complete(self.last)

    def _stop(self, step: int) -> NoReturn:
        """Waits until the checkpoint is saved, and raises PreemptedError."""
        with self.clock.pause():
            self.workdir.checkpoints.wait()
        where = f"saved in {self.workdir.root}" if step else "with nothing to save"
        raise PreemptedError(f"stopped after step {step}, {where}; run the same command again")
