"""Pretrains an encoder with SimCLR.

    simclr-train --config=configs/cifar10.py --workdir=RUN [--config.train.batch_size=256 …]

The same command continues a run that was interrupted. README.md says what it writes.
"""

import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from simclr_jax import checkpoint, cli, lock, metrics, parts, processes, rules
from simclr_jax import config as configs
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.data import pipeline
from simclr_jax.data.sources import Readable
from simclr_jax.errors import FULL_DISK, HostError, PreemptedError, UserError
from simclr_jax.evals.online import OnlineEvaluation
from simclr_jax.health import Health, write_batch
from simclr_jax.preemption import Preemption
from simclr_jax.store.files import check_client, is_remote

MIN_PATIENCE = 100  # steps, before a run's health is judged by where its loss and embeddings are

_log = logging.getLogger(__name__)


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "required; the run's folder", flag_values=values)
    flags.DEFINE_boolean(
        "allow_config_change",
        False,
        "go on with other values of keys that change neither the model nor the data's order",
        flag_values=values,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of simclr-train."""
    sys.exit(
        cli.run(
            lambda values, config: train(
                config, values.workdir, allow_config_change=values.allow_config_change
            ),
            doc=__doc__,
            define=define,
            argv=argv,
        )
    )


def train(config: ConfigDict, workdir: str | None, *, allow_config_change: bool = False) -> None:
    """Runs or continues the run of `config` in `workdir`.

    Raises:
      UserError: a key, the data or the workdir is at fault; nothing saved was touched.
      HostError: the disk is full, or another process is lost.
      DivergedError: loss, gradients or the state are not finite.
      PreemptedError: it was told to stop, and has saved.
    """
    if not workdir:
        raise UserError("--workdir: required, the folder that the run is kept in")
    checkpoint.quiet()
    rules.check_run(config, devices=jax.device_count())
    with contextlib.ExitStack() as stack:
        preemption = stack.enter_context(Preemption())
        source, eval_source = resolve(config)
        config = configs.freeze(config)
        root = open_workdir(workdir)
        stack.enter_context(held(root))
        run = Run(config, root, source, eval_source, preemption, allow_config_change)
        try:
            last = run.train()
        finally:
            run.close()
    if source.bad:
        processes.say(f"{len(source.bad)} unreadable images were replaced")
    processes.say(summary(last, run.schedule.total_steps, workdir))


class Run:
    """A run on its way: what it has saved, where it logs, and the loop that trains it.

    Args:
      config: of the run, frozen.
      root: the workdir, held.
      source, eval_source: of images to train and to evaluate on.
      preemption: that may end it early.
      allow_config_change: see `config.check_same_run`.
    """

    def __init__(
        self,
        config: ConfigDict,
        root: epath.Path,
        source: Readable,
        eval_source: Readable,
        preemption: Preemption,
        allow_config_change: bool,
    ):
        self.config, self.root, self.source = config, root, source
        self.preemption = preemption
        self.schedule = schedule = parts.schedule(config)
        if schedule.total_steps <= schedule.warmup_steps:
            _log.warning(
                "the run ends after %d steps, inside its warm-up of %d; see optim.warmup_epochs",
                schedule.total_steps,
                schedule.warmup_steps,
            )
        self.mesh = meshes.make()
        self.described = configs.describe(
            config, device=jax.devices()[0].device_kind, devices=jax.device_count()
        )
        rows = metrics.read_rows(root / "metrics.jsonl")
        self.saved = checkpoint.Checkpoints(
            root,
            keep=config.checkpoint.keep,
            best="eval_top1" if config.data.num_classes else "eval_loss",
            rows=rows,
        )
        self.start, self.state = self.restored(rows, allow_config_change)
        self.rows = [row for row in rows if row["step"] <= self.start]
        logged = self.rows[-1]["step"] if self.rows else 0
        if self.start - logged > config.log.every_steps and processes.is_primary():
            _log.warning(
                "%s has no rows from step %d to the checkpoint's: were they removed?",
                root / "metrics.jsonl",
                logged + 1,
            )
        if processes.is_primary():
            configs.write(root, self.described)
            announce(config, self.state, schedule.total_steps)
        self.log = metrics.MetricsLog(
            root if processes.is_primary() else None,
            last_step=self.start,
            total_steps=schedule.total_steps,
            tensorboard=config.log.tensorboard,
        )
        skips = config.train.on_nonfinite == "skip"
        self.health = Health(
            start_loss=2 * math.log(2 * config.train.batch_size - 1),
            patience=max(MIN_PATIENCE, schedule.warmup_steps),
            allowed=config.train.max_skipped_updates if skips else 0,
            skipped=max((row.get("skipped_updates", 0) for row in self.rows), default=0),
            record=self.record_batch,
        )
        self.evaluate = online_evaluation(config, eval_source, self.mesh)
        self.throughput = metrics.Throughput()
        self.pending: dict[str, jax.Array] | None = None  # of the step before, not yet fetched
        self.last: metrics.Row = {}

    def restored(
        self, rows: list[metrics.Row], allow_config_change: bool
    ) -> tuple[int, states.TrainState]:
        """The step to go on from, and its state: of the newest good checkpoint, or the initial."""
        config, root = self.config, self.root
        processes.check_agree(config=str(config), latest_checkpoint=str(self.saved.steps()[-1:]))
        initial = partial(
            states.initialize,
            parts.model(config),
            parts.optimizer(config, self.schedule.learning_rate).tx,
            seed=config.seed,
            image_size=config.data.image_size,
        )

        def check(stored: dict[str, Any]) -> None:
            changed = configs.check_same_run(
                config, configs.from_json(stored), str(root), allow_change=allow_config_change
            )
            if changed:
                processes.say(f"changed since: {', '.join(f'config.{key}' for key in changed)}")

        found = self.saved.restore_newest(states.abstract(initial, self.mesh), check)
        if found is not None:
            processes.say(f"resumed from step {found[0]}")
            return found
        intervals = [every(config.checkpoint, config)]
        if rows and (root / "config.json").exists():
            stored = configs.read(root)
            check(stored)
            before = configs.from_json(stored)
            intervals.append(every(before.checkpoint, before))
        self.check_none_is_missing(rows, intervals)
        if rows:
            processes.say(f"no checkpoint in {root}: its {len(rows)} steps are trained again")
        return 0, states.on_mesh(initial, self.mesh)

    def check_none_is_missing(self, rows: list[metrics.Row], intervals: list[int | None]) -> None:
        """Raises UserError where a checkpoint must have been completed, and there is none.

        Args:
          rows: of metrics.jsonl.
          intervals: steps between two checkpoints, now and as the run had it.
        """
        reached = rows[-1]["step"] if rows else 0
        overdue = all(steps and reached > 2 * steps for steps in intervals)
        if (self.root / "damaged").exists() or overdue:
            raise UserError(
                f"--workdir={self.root}: metrics.jsonl reaches step {reached}, yet there is no "
                "checkpoint; put one back, or begin in another workdir"
            )

    def train(self) -> metrics.Row:
        """Trains to the end; returns the last row.

        The order is fixed: evaluate if due, save if due, next batch, step, log the previous step.
        So the host is always one step ahead of the device, and whatever a checkpoint holds has
        been checked and logged.
        """
        config, total = self.config, self.schedule.total_steps
        objective = parts.objective(config, self.mesh)
        optimizer = parts.optimizer(config, self.schedule.learning_rate)
        step_fn = parts.jitted(parts.step(config, objective, optimizer), self.mesh)
        eval_every, save_every = every(config.eval, config), every(config.checkpoint, config)
        batches = parts.train_batches(
            config,
            self.source,
            rows=meshes.local_rows(self.mesh, config.train.batch_size),
            start_step=self.start,
            stop_step=total,
        )
        self.evaluate_again(eval_every)
        with contextlib.closing(batches):
            self.loop(step_fn, batches, eval_every, save_every)
        return self.last

    def loop(
        self,
        step_fn: parts.Step,
        batches: pipeline.Batches,
        eval_every: int | None,
        save_every: int | None,
    ) -> None:
        """The steps, in the order that `train` tells."""
        total = self.schedule.total_steps
        for step in range(self.start, total + 1):
            stop, evaluated = self.preemption.due(step), None
            to_evaluate = step > self.start and due(step, eval_every, total)
            if to_evaluate and not stop:
                evaluated = self.evaluated()
                stop = evaluated is None
            if step > self.start and (stop or due(step, save_every, total)):
                self.log_pending(step, evaluated, always=to_evaluate)
                self.save(step, evaluated)
            if stop:
                self.saved.wait()
                where = f"saved in {self.root}" if step else "with nothing to save"
                raise PreemptedError(
                    f"stopped after step {step}, {where}; run the same command again"
                )
            if step == total:
                break
            batch = meshes.put(next(batches), self.mesh)
            self.state, fresh = step_fn(self.state, batch)
            self.log_pending(step, evaluated, always=to_evaluate)
            self.pending = fresh
            self.saved.check()

    def log_pending(self, step: int, evaluated: dict[str, float] | None, *, always: bool) -> None:
        """Fetches, checks and logs the row of `step`, if that is not done yet."""
        if self.pending is None:
            return
        config = self.config
        epoch = step * config.train.batch_size / config.data.num_examples
        row: metrics.Row = {"step": step, "epoch": epoch}
        row |= metrics.to_floats(self.pending) | (evaluated or {})
        finite, self.pending = bool(row.pop("finite")), None
        self.health.check(row, finite=finite)
        self.preemption.unsaved = True
        self.throughput.step_done()
        if config.train.on_nonfinite == "skip":
            row["skipped_updates"] = self.health.skipped
        if always or not finite or step % config.log.every_steps == 0:
            row["images_per_second"] = self.throughput.images_per_second(config.train.batch_size)
            self.log.write(row)
        self.last = row

    def evaluated(self) -> dict[str, float] | None:
        """The evaluation of the state; None if the process was told to stop meanwhile."""
        jax.block_until_ready(self.state)  # what is still running is training
        with self.throughput.pause():
            return self.evaluate(
                self.state, lambda: self.preemption.heard and not processes.several()
            )

    def evaluate_again(self, every_steps: int | None) -> None:
        """Makes up for an evaluation of the restored state that was cut short."""
        row = self.rows[-1] if self.rows else {"step": 0}
        row = {key: math.nan if value is None else value for key, value in row.items()}
        missing = row["step"] == self.start > 0 and "eval_loss" not in row
        missing = missing and due(self.start, every_steps, self.schedule.total_steps)
        if not processes.all_have(missing):
            return
        evaluated = self.evaluated()
        if evaluated is not None:
            self.last = row | evaluated
            self.health.check(self.last, finite=True)
            self.saved.evaluated(self.start, evaluated)
            self.log.complete(self.last)

    def save(self, step: int, evaluated: dict[str, float] | None) -> None:
        """Saves the state after update `step`, once its rows are on disk."""
        self.log.flush()
        self.saved.evaluated(step, evaluated or {})
        with self.throughput.pause():
            self.saved.save(step, self.state, self.described)

    def record_batch(self, row: metrics.Row, last: metrics.Row) -> str:
        """Writes down which images the batch of a row's step had; returns where."""
        config = self.config
        if not processes.is_primary():
            return f"{self.root}"
        index, epoch = parts.order(config, len(self.source)).batch(row["step"] - 1)
        examples = [
            {"index": int(i), "epoch": int(e), "name": self.source.name(int(i))}
            for i, e in zip(index, epoch, strict=True)
        ]
        return write_batch(self.root, row, last, examples)

    def close(self) -> None:
        """Ends the files; an error on the way does not hide the one that ended the run."""
        failing = sys.exc_info()[1] is not None
        for file in (self.saved, self.log):
            try:
                file.close()
            except Exception:
                if not failing:
                    raise


@contextlib.contextmanager
def held(root: epath.Path) -> Iterator[None]:
    """Holds the workdir's lock in process 0; all processes fail where that does."""
    with contextlib.ExitStack() as stack:
        error: Exception | None = None
        if processes.is_primary():
            try:
                stack.enter_context(lock.hold(root))
            except (UserError, HostError) as failure:
                error = failure
        if not processes.all_have(error is None):
            raise error or UserError(f"--workdir={root}: process 0 cannot hold it")
        yield


def resolve(config: ConfigDict) -> tuple[Readable, Readable]:
    """Opens both splits and fills in what only the data know."""
    source = parts.open_split(config, "train")
    if len(source) < config.train.batch_size:
        raise rules.wrong(
            "train.batch_size",
            config.train.batch_size,
            f"at most the {len(source)} images of {config.data.train_split!r}",
        )
    eval_source = parts.open_split(config, "eval")
    if source.num_classes != eval_source.num_classes:
        raise rules.wrong(
            "data.eval_split",
            config.data.eval_split,
            f"a split with the training split's {source.num_classes} classes",
        )
    config.data.num_examples, config.data.num_classes = len(source), source.num_classes
    if parts.schedule(config).total_steps >= 2**31:
        raise rules.wrong("train.epochs", config.train.epochs, "fewer than 2**31 steps")
    return source, eval_source


def open_workdir(workdir: str) -> epath.Path:
    """The run's folder, made if it is missing."""
    check_client(workdir)
    checkpoint.check_path("workdir", workdir)
    root = epath.Path(workdir).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise  # exit status 3
        raise UserError(
            f"--workdir={workdir}: cannot be made ({error.strerror}); name a folder to write in"
        ) from error
    root = root if is_remote(root) else root.resolve()
    checkpoint.check_path("workdir", root)
    return root


def online_evaluation(
    config: ConfigDict, source: Readable, mesh: jax.sharding.Mesh
) -> OnlineEvaluation:
    """The evaluation that runs while training, on the evaluation split."""
    size = config.eval.batch_size or config.train.batch_size
    rows = meshes.local_rows(mesh, size)
    return OnlineEvaluation(
        model=parts.model(config),
        loss=parts.loss(config, size),
        mesh=mesh,
        num_examples=len(source),
        batch_size=size,
        views=lambda: parts.train_batches(
            config,
            source,
            rows=rows,
            start_step=0,
            stop_step=math.ceil(len(source) / size),
            batch_size=size,
        ),
        images=lambda: pipeline.eval_batches(
            source,
            batch_size=size,
            rows=rows,
            image_size=config.data.image_size,
            transfer_dtype=config.data.transfer_dtype,
        ),
        blur_radius=parts.blur_radius(config),
    )


def every(section: ConfigDict, config: ConfigDict) -> int | None:
    """Steps between two evaluations or checkpoints; None: only at the end."""
    if section.every_steps is not None:
        return section.every_steps
    if section.every_epochs is None:
        return None
    steps_per_epoch = config.data.num_examples / config.train.batch_size
    return max(1, round(section.every_epochs * steps_per_epoch))


def due(step: int, every_steps: int | None, total: int) -> bool:
    return step == total or (every_steps is not None and step % every_steps == 0)


def announce(config: ConfigDict, state: states.TrainState, total_steps: int) -> None:
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
    devices = jax.devices()
    processes.say(
        f"{config.data.name}: {config.data.num_examples} images, "
        f"{config.data.num_classes or 'no'} classes; ResNet-{config.model.depth} x"
        f"{config.model.width:g}, "
        f"{count:,} parameters; {total_steps} steps of {config.train.batch_size} images on "
        f"{len(devices)} {devices[0].device_kind}"
    )


def summary(row: metrics.Row, total_steps: int, workdir: str) -> str:
    """What the run reached, and what to do with it."""
    if not row:
        return f"done: {workdir} had reached step {total_steps} already"
    reached = [f"contrastive loss {row['contrastive_loss']:.3f}"]
    if "eval_loss" in row:
        reached.append(f"eval loss {row['eval_loss']:.3f}")
    if "eval_top1" in row:
        reached.append(f"eval top-1 {row['eval_top1']:.1%} (online linear classifier)")
    done = f"done: step {total_steps}, {', '.join(reached)}"
    if "eval_top1" not in row:
        return done
    return f"{done}\nnext: simclr-eval --config=configs/eval/linear.py --run={workdir}"


if __name__ == "__main__":
    main()
