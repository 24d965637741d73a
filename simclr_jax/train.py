"""Pretrains an encoder with SimCLR.

    simclr-train --config=configs/cifar10.py --workdir=RUN [--config.train.batch_size=256 …]
    simclr-train --config=configs/cifar10.py --dry_run

The same command continues a run that was interrupted. docs/runs.md says what it writes. --dry_run
says what a run would be and take: it checks what a start checks, times a few steps, and writes
nothing.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple

from absl import flags
from etils import epath, epy
from ml_collections import FrozenConfigDict

from simclr_jax import cli
from simclr_jax.errors import UserError

with epy.lazy_imports():  # --help and most refusals need none of these.
    import jax

    from simclr_jax import mesh as meshes
    from simclr_jax import processes
    from simclr_jax import state as states
    from simclr_jax.config import constraints, inputs, overrides, parts, record, sources, wish
    from simclr_jax.data import readable as data
    from simclr_jax.data import stream
    from simclr_jax.run import (
        advice,
        board,
        choice,
        clock,
        determinism,
        estimate,
        forecast,
        health,
        loop,
        online,
        outline,
        preemption,
        profile,
        progress,
        rehearsal,
        resume,
        start,
        startup,
        teacher,
        unreadable,
        warned,
        watchdog,
    )
    from simclr_jax.run import workdir as workdirs
    from simclr_jax.store import checkpoint, lock, tracker
    from simclr_jax.store import rows as metrics


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-train, besides --config, in `values`."""
    flags.DEFINE_string("workdir", None, "required; the run's folder", flag_values=values)
    flags.DEFINE_boolean(
        "allow_config_change",
        False,
        "go on with other values of keys that change neither the model nor the data's order",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "dry_run",
        False,
        "say what the run would be and take, by a few steps that are timed; write nothing",
        flag_values=values,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-train and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    about_config, others = cli.divide(argv)

    def work(values: flags.FlagValues, config: FrozenConfigDict) -> None:
        allow = values.allow_config_change
        if values.dry_run:
            name = overrides.given(about_config)
            following = _without_dry_run(about_config, others, values.workdir)
            dry_run(config, values.workdir or None, name, following, allow_config_change=allow)
        else:
            train(config, values.workdir, allow_config_change=allow)

    sys.exit(
        cli.run(
            work,
            doc=__doc__,
            define=define,
            argv=argv,
        )
    )


def _without_dry_run(about_config: list[str], others: list[str], workdir: str | None) -> str:
    """The command line of the run that --dry_run was about."""
    kept = [arg for arg in others if not re.fullmatch(r"--?(no)?dry_run(=.*)?", arg)]
    if not workdir:
        name = PurePath(overrides.given(about_config).partition(":")[0]).stem
        kept.append(f"--workdir=runs/{name}")
    return shlex.join(["simclr-train", *about_config, *kept])


def train(
    config: FrozenConfigDict, workdir: str | None, *, allow_config_change: bool = False
) -> None:
    """Begins or continues a run.

    Args:
      config: The config of the run.
      workdir: The folder of the run, on a disk or in a bucket.
      allow_config_change: Whether keys that fix neither the model nor the data's order may differ.

    Raises:
      UserError: A key, the data or the workdir is at fault; nothing saved was touched.
      HostError: The disk is full, or another process is lost.
      DivergedError: A loss, a gradient or a state is not finite.
      PreemptedError: A signal asked the run to stop; its state is saved.
    """
    if not workdir:
        raise UserError("--workdir: required, the folder that the run is kept in")
    starting, config = startup.Startup.of_process(), workdirs.begun(config, workdir)
    _begin(config, starting)
    config = sources.indexed_in(config, workdir)
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(preemption.Preemption())
        config, source, eval_source, built, fingerprints = _opened(config, workdir, starting)
        root = workdirs.make(workdir)
        stack.enter_context(workdirs.locked(root))
        total = built.schedule.total_steps
        advice.warn(config, built.schedule, source)
        rows = metrics.read_rows(root / "metrics.jsonl")
        checkpoints = stack.enter_context(workdirs.open_checkpoints(root, config, rows))
        step, state, rows = resume.resume(
            config, built, root, checkpoints, rows, fingerprints, allow_change=allow_config_change
        )
        described = _announce(root, config, fingerprints, state, total, source, eval_source)
        log = stack.enter_context(workdirs.open_log(root, config, built.intervals, step))
        batches = stack.enter_context(_batches(config, built, source, step))
        images = {"train": source, "eval": eval_source}
        listed = unreadable.Listed(root, images, fingerprints, step)
        timing, on_step = stack.enter_context(_timed(config, root, step, total, starting))
        training = loop.Loop(
            step=built.step,
            batches=board.viewed(batches, config, log, start=step),
            mesh=built.mesh,
            evaluate=_evaluation(config, built, eval_source, source, root),
            intervals=built.intervals,
            order=inputs.order(config, len(source)),
            name_of=source.name,
            workdir=workdirs.Workdir(root, described, checkpoints, log, listed.save),
            health=health.Health.of_run(
                config, built.schedule.warmup_steps, rows, warned.Kept(root, step)
            ),
            preemption=signals,
            clock=timing,
            measure=built.measure,
            on_step=on_step,
            on_wait=partial(advice.warn_of_waiting, config),
        )
        last = training.train(step, state, rows)
    unreadable.say(images)
    processes.say(progress.summary(last, total, workdir, progress.next_protocol(config, source)))


def dry_run(
    config: FrozenConfigDict,
    workdir: str | None,
    name: str,
    following: str,
    *,
    allow_config_change: bool = False,
) -> None:
    """Says what a run would be and take. It makes the checks of a start, and writes nothing.

    Args:
      config: The config of the run.
      workdir: The folder of the run, which need not exist; None: that of a run that begins.
      name: The name of the config.
      following: The command line of the run.
      allow_config_change: See `train`; it raises what `train` does as well.
    """
    starting, given = startup.Startup.of_process(), workdirs.begun(config, workdir)
    _begin(given, starting)
    with contextlib.ExitStack() as stack:
        config, source, eval_source, built, fingerprints = _opened(given, workdir, starting)
        images, total = outline.Images(source, eval_source), built.schedule.total_steps
        root = None if workdir is None else workdirs.could_be_made(workdir)
        if root is not None:
            stack.enter_context(workdirs.locked(root, lock.free))
        advice.warn(config, built.schedule, source)
        if root is None:
            step, state, _ = resume.first(config, built, fingerprints)
        else:
            rows, reader = metrics.read_rows(root / "metrics.jsonl"), checkpoint.Reader(root)
            step, state, _ = resume.resume(
                config, built, root, reader, rows, fingerprints,
                allow_change=allow_config_change, says="would resume",
            )  # fmt: skip
        rows_of = outline.planned(name, given, config, images, built, state, step)
        processes.say(outline.text(rows_of))
        if step >= total and workdir is not None:
            protocol = progress.next_protocol(config, source)
            processes.say(progress.summary({}, total, workdir, protocol))
            return
        until_now = starting.seconds()
        seconds = rehearsal.SECONDS
        found = rehearsal.rehearse(config, built, source, state, start=step, seconds=seconds)
    rows_of = forecast.timed(config, images, built, found, start=step, until_now=until_now)
    processes.say(outline.text(rows_of))
    unreadable.say({"train": source, "eval": eval_source})
    processes.say(f"nothing was written; next: {following}")


class _Opened(NamedTuple):
    """The config with all counts, the images of a run, its parts, and the fingerprints.

    The fingerprints are those of the images and of the teacher that the run may have.
    """

    config: FrozenConfigDict
    source: data.Readable
    eval_source: data.Readable
    built: parts.Parts
    fingerprints: record.Fingerprints


def _opened(config: FrozenConfigDict, workdir: str | None, starting: startup.Startup) -> _Opened:
    """Opens the images of a run, chooses what its config leaves open, and builds its parts."""
    workdirs.check_shared(workdir)
    source, eval_source = sources.open_splits(wish.provisional(config, jax.device_count()))
    config = teacher.with_classes(choice.made(config, source, eval_source, starting.seconds))
    described, names = workdirs.described(workdir) or {}, record.named_classes(source)
    taught = teacher.load(config, described, names)
    fingerprints = record.fingerprints(source, eval_source) | taught.fingerprint
    built = parts.build(config, meshes.make(), taught.teacher)
    profile.check(config.train.profile_steps, built.schedule.total_steps)
    classes = record.classes_of({"fingerprints": fingerprints})
    starting.done("images")
    config = start.with_step(config, built, workdir, classes)
    return _Opened(config, source, eval_source, built, fingerprints)


def _begin(config: FrozenConfigDict, starting: startup.Startup) -> None:
    """Sets up the process, starts the devices, and checks that the config fits them."""
    checkpoint.quiet()
    constraints.check_keys(config)
    if config.log.tracker is not None:
        tracker.check(config.log.tracker)
    determinism.ask_for(config.train.deterministic)
    constraints.check_begun(config, devices=jax.device_count())
    starting.done("imports and devices")
    progress.note("listing the images")


@contextlib.contextmanager
def _timed(
    config: FrozenConfigDict,
    root: epath.Path,
    start: int,
    total: int,
    starting: startup.Startup,
) -> Iterator[tuple[clock.Clock, Sequence[Callable[[], None]]]]:
    """A context with a run's clock, and the functions that watch, time and profile its steps."""
    starting.done("weights")
    timing = clock.Clock()
    estimated = estimate.Estimate.of_run(config, timing, start=start, total=total)
    profiled = profile.of_steps(config.train.profile_steps, root, start=start)
    with watchdog.Watchdog.of_run(config, timing) as watched, profiled as step_profiled:
        yield timing, (starting.step_done, watched.step_done, estimated.step_done, step_profiled)


def _batches(
    config: FrozenConfigDict, built: parts.Parts, source: data.Readable, start: int
) -> contextlib.closing[stream.Batches]:
    """A context with this process's rows of the batches, from step `start` on."""
    batches = inputs.train_batches(
        config,
        source,
        rows=meshes.local_rows(built.mesh, config.train.batch_size),
        start_step=start,
        stop_step=built.schedule.total_steps,
    )
    return contextlib.closing(batches)


def _evaluation(
    config: FrozenConfigDict,
    built: parts.Parts,
    eval_source: data.Readable,
    source: data.Readable,
    root: epath.Path,
) -> loop.Evaluate:
    """The evaluation during a run, which also shows TensorBoard the last representations."""
    scores = online.open_evaluation(config, built, eval_source, source)
    return board.projected(scores, config, built, eval_source, root / "tensorboard")


def _announce(
    root: epath.Path,
    config: FrozenConfigDict,
    fingerprints: record.Fingerprints,
    state: states.TrainState,
    total_steps: int,
    source: data.Readable,
    eval_source: data.Readable,
) -> dict[str, Any]:
    """Writes config.json and announces the run, in process 0; returns what config.json holds."""
    processes.say(progress.data_line(source, eval_source))
    described = record.describe(
        config,
        device=jax.devices()[0].device_kind,
        devices=jax.device_count(),
        fingerprints=fingerprints,
    )
    if processes.is_primary():
        record.write(root, described)
        progress.announce(config, state, total_steps)
    progress.note("compiling the train step and making the first batches")
    return described


if __name__ == "__main__":
    main()
