"""The replay of a run: some of its steps, computed again and compared with what is on disk.

A run is a function of its config and its seed. So with the same versions and the same hardware
every number and every array must come out again to the bit, and elsewhere to rounding.
"""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
from etils import epath
from ml_collections import FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax import state as states
from simclr_jax.config import constraints, inputs, overrides, parts, record, sources
from simclr_jax.errors import DifferenceError, DivergedError, FileError, UserError
from simclr_jax.objectives.microbatches import shuffled_within
from simclr_jax.run import determinism, start, teacher
from simclr_jax.run.health import Health
from simclr_jax.run.loop import Loop
from simclr_jax.run.network import open_run
from simclr_jax.run.online import open_evaluation
from simclr_jax.run.preemption import Preemption
from simclr_jax.run.recorded import Again, AsRecorded, Recorded, by_path, check_one_config
from simclr_jax.run.workdir import Workdir
from simclr_jax.state import TrainState
from simclr_jax.store import checkpoint
from simclr_jax.store.rows import Row, as_json, read_rows

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Span(NamedTuple):
    """The steps to check, from `first` to `last`, and the checkpoints among them."""

    first: int
    last: int
    saved: tuple[int, ...]


def find_span(run: str, saved: list[int], logged: int, step: int | None, steps: int | None) -> Span:
    """The steps that the flags name.

    >>> find_span("RUN", [4, 8], 8, None, None)
    Span(first=5, last=8, saved=(8,))

    Args:
      run: The folder of the run, for messages.
      saved: The steps of its checkpoints, ascending.
      logged: The step of its last row; 0 without rows.
      step: The first step to check; None: the one after the last checkpoint but one.
      steps: The number of steps to check; None: up to the next checkpoint, or else to the last row.

    Raises:
      UserError: The run does not have these steps.
    """
    reached = max([logged, *saved])
    if not reached:
        raise UserError(f"--run={run}: has no step yet that could be computed again")
    first = [0, 0, *saved][-2] + 1 if step is None else step
    if not 1 <= first <= reached:
        raise UserError(f"--step={step}: {run} has steps 1 to {reached}")
    last = min([saved_at for saved_at in saved if saved_at >= first], default=reached)
    if steps is not None:
        last = first + steps - 1
    if not first <= last <= reached:
        raise UserError(
            f"--steps={steps}: must be 1 to {reached - first + 1}, from step {first} on"
        )
    return Span(first, last, tuple(found for found in saved if first <= found <= last))


def replay(run: str, *, step: int | None, steps: int | None, data_dir: str | None = None) -> None:
    """Computes steps of a run again, from the checkpoint before them, and compares.

    It writes nothing into the run. Without a good checkpoint before the first step it begins at
    step 0, whose state follows from the seed.

    Args:
      run: The folder of the run.
      step: The first step to check; see `find_span`.
      steps: The number of steps to check; see `find_span`.
      data_dir: The folder of the images; None: where they were.

    Raises:
      UserError: A flag is at fault, or the run cannot be computed again here.
      DifferenceError: A row or an array is not what the steps lead to.
    """
    checkpoint.quiet()
    root = open_run(run)
    described = record.read(root)
    determinism.ask_for(record.from_json(described).train.deterministic)
    reader, rows = checkpoint.Reader(root), read_rows(root / "metrics.jsonl")
    span = find_span(run, reader.steps(), rows[-1]["step"] if rows else 0, step, steps)
    stored = {saved: _sound(reader.described, saved) for saved in span.saved}
    described = _described(reader, span.last) or described
    config = _config(run, described, data_dir)
    check_one_config(config, {saved: about for saved, (_, about) in stored.items()})
    built = parts.build(config, meshes.make(), teacher.again(config, described))
    initial = partial(start.first_state, config, built, record.classes_of(described))
    begin, state = _restore(reader, built, span.first, initial)
    state = jax.tree.map(meshes.on_host, state)  # The steps donate theirs.
    conditions = [*(about for _, about in stored.values()), described]
    reasons = [*dict.fromkeys(r for about in conditions for r in _other_conditions(about, config))]
    processes.say(
        f"steps {begin + 1} to {span.last} from "
        f"{f'checkpoint {begin}' if begin else f'the state of seed {config.seed}'}, to be compared "
        + (f"to rounding, since {'; '.join(reasons)}" if reasons else "bit for bit")
    )
    for saved in span.saved:
        _sound(reader.state, saved, states.abstract(built.initial, built.mesh))
    recorded = Recorded(
        [row for row in rows if begin < row["step"] <= span.last],
        {saved: digests["arrays"] for saved, (digests, _) in stored.items()},
    )
    compute = Steps(described, config, built, range(begin, span.last), rows, recorded)
    if reasons:
        how = _compare_to_rounding(compute, state, recorded, reader, built)
    else:
        how = "bit for bit"
        compute(state, recorded.check_row, recorded.check_state)
    checked = "".join(f", checkpoint {saved}" for saved in span.saved)
    processes.say(
        f"verdict: the rows of steps {begin + 1} to {span.last}{checked} are what config and seed "
        f"lead to, {how}"
    )


def _described(reader: checkpoint.Reader, last: int) -> dict[str, Any] | None:
    """The description of the process that computed a step; None: that in config.json."""
    later = [saved for saved in reader.steps() if saved >= last]
    with contextlib.suppress(FileError):  # A checkpoint after those to check may be damaged.
        # The process that wrote a checkpoint computed the steps before it.
        return reader.described(later[0])[1] if later else None
    return None


def _config(run: str, described: dict[str, Any], data_dir: str | None) -> FrozenConfigDict:
    """The config to compute again with; raises UserError where that cannot be done."""
    config = record.from_json(described)
    if "imported_from" in described:
        raise UserError(f"--run={run}: holds imported weights, which no steps here lead to")
    if data_dir is not None:
        config = overrides.changed(config, {"data.dir": data_dir})
    constraints.check_run(config, devices=jax.device_count())
    return config


def _sound(read: Callable[..., T], *arguments: Any) -> T:
    """What is read of a checkpoint that is to be checked; damage to it is a difference."""
    try:
        return read(*arguments)
    except FileError as error:
        raise DifferenceError(str(error)) from error


def _restore(
    reader: checkpoint.Reader, built: parts.Parts, first: int, initial: Callable[[], TrainState]
) -> tuple[int, TrainState]:
    """The newest good checkpoint before a step and its state, or step 0 and the first state."""
    abstract = states.abstract(built.initial, built.mesh)
    for step in sorted((step for step in reader.steps() if step < first), reverse=True):
        try:
            return step, reader.state(step, abstract)
        except FileError as error:
            _log.warning("%s; beginning before it", error)
    return 0, initial()


def _other_conditions(described: dict[str, Any], config: FrozenConfigDict) -> list[str]:
    """What keeps the bits from being the same: other versions or hardware than the run had."""
    here = record.describe(config, device=jax.devices()[0].device_kind, devices=jax.device_count())
    then, now = ({**x["versions"], **x} for x in (described, here))
    reasons = [
        f"{name} was {then.get(name, 'not noted')} and is {value}"
        for name, value in now.items()
        if name not in ("config", "fingerprints", "versions") and then.get(name) != value
    ]
    if jax.devices()[0].platform == "gpu" and not config.train.deterministic:
        reasons.append("a GPU repeats its bits with config.train.deterministic=True only")
    return reasons


class Steps:
    """Some steps of a run, to be computed by its own loop, which then writes nothing.

    Args:
      described: The description of the run.
      config: The config of the run, with the folder that its images are in now.
      built: The parts of the run.
      steps: The numbers of updates before each of the steps.
      rows: All rows of the run.
      recorded: What the run has recorded of the steps; what is evaluated and logged follows it.

    Raises:
      UserError: There are more or fewer images than the run had.
    """

    def __init__(
        self,
        described: dict[str, Any],
        config: FrozenConfigDict,
        built: parts.Parts,
        steps: range,
        rows: list[Row],
        recorded: Recorded,
    ):
        self._config, self._built, self._steps = config, built, steps
        self._before = [row for row in rows if row["step"] <= steps.start]
        due = {**vars(built.intervals), "total": steps.stop}
        self._intervals = AsRecorded(**due, recorded=recorded)
        self._source, eval_source = sources.open_splits(config)
        found = record.fingerprints(self._source, eval_source)
        if changed := record.changed_images(found, described):
            line = f"the images are not the run's; changed are {', '.join(changed)}"
            if len(self._source) != config.data.num_examples:
                raise UserError(f"config.data.dir={config.data.dir!r}: {line}")
            processes.say(line)  # Whether these steps have met the change, their rows will show.
        neighbours = self._source if recorded.has("eval_knn") else None
        self._evaluate = open_evaluation(config, built, eval_source, neighbours)

    def __call__(
        self,
        state: Any,
        on_row: Callable[[Row], None],
        on_state: Callable[[int, dict[str, Any]], None],
        *,
        reorder: bool = False,
    ) -> None:
        """Computes the steps.

        Args:
          state: The state before them, on the host.
          on_row: A function of each row.
          on_state: A function of each recorded checkpoint's step and items.
          reorder: Whether to put the images of each batch into another order.

        Raises:
          DifferenceError: A number is not finite; or what the functions raise.
        """
        config, built = self._config, self._built
        own_rows = meshes.local_rows(built.mesh, config.train.batch_size)
        batches = inputs.train_batches(
            config,
            self._source,
            rows=own_rows,
            start_step=self._steps.start,
            stop_step=self._steps.stop,
        )
        within = partial(_reordered, count=config.train.microbatches)
        sink = _Sink(on_row, on_state, self._intervals.recorded.checkpoints)
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(batches):
            loop = Loop(
                step=built.step,
                batches=map(within, batches) if reorder else batches,
                mesh=built.mesh,
                evaluate=self._evaluate,
                measure=built.measure,
                intervals=self._intervals,
                order=inputs.order(config, len(self._source)),
                name_of=self._source.name,
                workdir=Workdir(epath.Path(folder), {}, cast(Any, sink), cast(Any, sink)),
                health=Health.of_run(config, built.schedule.warmup_steps, self._before),
                preemption=Preemption(),  # No context: signals end a replay at once.
            )
            on_mesh = jax.device_put(state, built.placed)
            try:
                loop.train(self._steps.start, on_mesh, [])
            except DivergedError as error:
                raise DifferenceError(f"computed again, {error}") from error


class _Sink:
    """What stands for the log and the checkpoints of a run: it hands on what they would write."""

    def __init__(
        self,
        on_row: Callable[[Row], None],
        on_state: Callable[[int, dict[str, Any]], None],
        checkpoints: Container[int],
    ):
        self._on_row, self._on_state, self._checkpoints = on_row, on_state, checkpoints

    def write(self, row: Row) -> None:
        self._on_row(as_json(row))

    def save(self, step: int, state: TrainState, described: dict[str, Any]) -> None:
        if step in self._checkpoints:
            self._on_state(step, checkpoint.items(state))

    def nothing(self, *_: Any) -> None:
        pass

    flush = wait = remember = raise_failure = nothing


def _reordered(batch: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """A batch whose rows are in another order, within each of `count` microbatches."""
    order = shuffled_within(len(batch["label"]), count, seed=0)
    return {key: value[order] for key, value in batch.items()}


def _compare_to_rounding(
    compute: Steps, state: Any, recorded: Recorded, reader: checkpoint.Reader, built: parts.Parts
) -> str:
    """Compares to rounding, where the bits are not the same; says in words which of both it was."""
    again, reordered = Again(), Again()
    compute(state, again.keep_row, again.keep_state)
    if recorded.is_equal(again):
        return "and even bit for bit"
    processes.say(
        "the bits differ; the same steps in another order tell what rounding makes on this hardware"
    )
    compute(state, reordered.keep_row, reordered.keep_state, reorder=True)
    abstract = states.abstract(built.initial, built.mesh)
    saved = {
        step: by_path(checkpoint.items(reader.state(step, abstract)))
        for step in recorded.checkpoints
    }
    if alone := recorded.check_to_rounding(again, reordered, saved):
        processes.say(f"not compared, for only one of both has it: {', '.join(sorted(alone))}")
    return "to what rounding makes on this hardware"
