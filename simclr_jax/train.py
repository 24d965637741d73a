"""Pretrains an encoder with SimCLR.

    simclr-train --config=configs/cifar10.py --workdir=RUN [--config.train.batch_size=256 …]

The same command continues a run that was interrupted. README.md says what it writes.
"""

import logging
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from simclr_jax import checkpoint, cli, metrics, parts, processes, rules
from simclr_jax import config as configs
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.buckets import check_installed, is_remote
from simclr_jax.data import pipeline
from simclr_jax.data.sources import Readable
from simclr_jax.errors import DivergedError, UserError
from simclr_jax.evals.online import OnlineEvaluation

_log = logging.getLogger(__name__)


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "required; the run's folder", flag_values=values)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of simclr-train."""
    sys.exit(
        cli.run(
            lambda values, config: train(config, values.workdir),
            doc=__doc__,
            define=define,
            argv=argv,
        )
    )


def train(config: ConfigDict, workdir: str | None) -> None:
    """Runs or continues the run of `config` in `workdir`."""
    if not workdir:
        raise UserError("--workdir: required, the folder that the run is kept in")
    checkpoint.quiet()
    rules.check_run(config, devices=jax.device_count())
    source, eval_source = resolve(config)
    config = configs.freeze(config)
    root = open_workdir(workdir)
    schedule = parts.schedule(config)
    if schedule.total_steps <= schedule.warmup_steps:
        _log.warning(
            "the run ends after %d steps, inside its warm-up of %d; see optim.warmup_epochs",
            schedule.total_steps,
            schedule.warmup_steps,
        )

    mesh = meshes.make()
    described = configs.describe(
        config, device=jax.devices()[0].device_kind, devices=jax.device_count()
    )
    saved = checkpoint.Checkpoints(
        root,
        keep=config.checkpoint.keep,
        best="eval_top1" if config.data.num_classes else "eval_loss",
    )
    start = saved.latest_step()
    processes.check_agree(config=str(config), latest_checkpoint=str(start))
    model, tx = parts.model(config), parts.optimizer(config, schedule.learning_rate)
    initial = partial(
        states.initialize, model, tx, seed=config.seed, image_size=config.data.image_size
    )
    if start is None:
        start = 0
        state = states.on_mesh(initial, mesh)
    else:
        stored = configs.from_json(saved.restore_config(start))
        configs.check_same_run(config, stored, workdir)
        state = saved.restore(start, states.abstract(initial, mesh))
        processes.say(f"resumed from step {start}")
    if processes.is_primary():
        configs.write(root, described)
        announce(config, model, state, schedule.total_steps)
    log = metrics.MetricsLog(
        root if processes.is_primary() else None,
        last_step=start,
        total_steps=schedule.total_steps,
        tensorboard=config.log.tensorboard,
    )
    try:
        last = loop(config, mesh, state, start, source, eval_source, saved, described, log)
    finally:
        saved.close()
        log.close()
    if source.bad:
        processes.say(f"{len(source.bad)} unreadable images were replaced")
    processes.say(summary(last, schedule.total_steps, workdir))


def loop(
    config: ConfigDict,
    mesh: jax.sharding.Mesh,
    state: states.TrainState,
    start: int,
    source: Readable,
    eval_source: Readable,
    saved: checkpoint.Checkpoints,
    described: dict[str, Any],
    log: metrics.MetricsLog,
) -> metrics.Row:
    """Trains from step `start` to the end; returns the last row.

    The order is fixed: evaluate if due, save if due, next batch, step, log the previous step. So
    the host is always one step ahead of the device, and whatever a checkpoint holds has been
    checked and logged.
    """
    batch_size = config.train.batch_size
    total = parts.schedule(config).total_steps
    step_fn = parts.jitted(parts.step(config, mesh), mesh)
    evaluate = online_evaluation(config, eval_source, mesh)
    eval_every = every(config.eval, config)
    save_every = every(config.checkpoint, config)
    batches = parts.train_batches(
        config,
        source,
        rows=meshes.local_rows(mesh, batch_size),
        start_step=start,
        stop_step=total,
    )
    throughput = metrics.Throughput()
    pending: dict[str, jax.Array] | None = None  # of the step before, not yet fetched
    last: metrics.Row = {}
    evaluated: dict[str, float] = {}

    def log_pending(step: int) -> None:
        nonlocal pending, last, evaluated
        if pending is None:
            return
        row = {"step": step, "epoch": step * batch_size / config.data.num_examples}
        row |= metrics.to_floats(pending) | evaluated
        check_finite(row)
        throughput.step_done()
        if step % config.log.every_steps == 0 or step == total or evaluated:
            row["images_per_second"] = throughput.images_per_second(batch_size)
            log.write(row)
        last, pending, evaluated = row, None, {}

    for step in range(start, total + 1):
        if step > start and due(step, eval_every, total):
            jax.block_until_ready(state)  # what is still running is training
            with throughput.pause():
                evaluated = evaluate(state)
        if step > start and due(step, save_every, total):
            results = evaluated
            log_pending(step)
            log.flush()
            with throughput.pause():
                saved.save(step, state, described, results or None)
        if step == total:
            break
        batch = meshes.put(next(batches), mesh)
        state, fresh = step_fn(state, batch)
        log_pending(step)
        pending = fresh
    return last


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
    check_installed(workdir)
    root = epath.Path(workdir).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made ({error.strerror})") from error
    return root if is_remote(root) else root.resolve()


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


def check_finite(row: metrics.Row) -> None:
    for key in ("loss", "grad_norm", "eval_loss"):
        if key in row and not math.isfinite(row[key]):
            raise DivergedError(
                f"step {row['step']}: {key} is {row[key]} at learning rate "
                f"{row['learning_rate']:.4g}; the checkpoints before it are kept"
            )


def announce(config: ConfigDict, model: Any, state: states.TrainState, total_steps: int) -> None:
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
    devices = jax.devices()
    print(
        f"{config.data.name}: {config.data.num_examples} images, "
        f"{config.data.num_classes or 'no'} classes; ResNet-{model.depth} x{model.width:g}, "
        f"{count:,} parameters; {total_steps} steps of {config.train.batch_size} images on "
        f"{len(devices)} {devices[0].device_kind}",
        flush=True,
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
