"""Runs a study point by point, measures each point, and makes the study's table and figure.

    simclr-sweep --config=configs/paper/fig8_head.py:size=small --workdir=SWEEP
    simclr-sweep --config=… --workdir=SWEEP --list | --index=K | --gather

A point is a run with its evaluations, in SWEEP/points/NAME. The same command goes on where it was
stopped. Several at once, where they share the folder, divide the points among them. A point that
fails does not stop the others. At the end, or by --gather, the values are in SWEEP/table.json,
table.md, figure.svg and figure.png. docs/sweeps.md says how to write a study of one's own.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath, epy
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import cli
from simclr_jax.errors import (
    ArgumentError,
    FailedError,
    HostError,
    PreemptedError,
    UserError,
    one_line,
)

with epy.lazy_imports():  # --help and most refusals need none of these.
    import jax

    from simclr_jax import eval as evaluation
    from simclr_jax import mesh as meshes
    from simclr_jax import plan as plans
    from simclr_jax import processes, train
    from simclr_jax.config import overrides, rules, sources
    from simclr_jax.evals import results
    from simclr_jax.pages import plots, tables
    from simclr_jax.run import progress
    from simclr_jax.run import workdir as workdirs
    from simclr_jax.store import files
    from simclr_jax.sweeps import contents, costs, gathered, measured, turns
    from simclr_jax.sweeps import points as studies
    from simclr_jax.tpu import chips

# The time limit in seconds for all processes to fail at a point, after one of them did.
FAILED_SECONDS = 300


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-sweep, besides --config, in `values`."""
    flags.DEFINE_string("workdir", None, "required; the sweep's folder", flag_values=values)
    flags.DEFINE_boolean(
        "list",
        False,
        "print the points with their cost and state, and run none",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "index",
        None,
        "run this point alone, and before it those it starts from",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "gather", False, "make the table and the figure of what is there", flag_values=values
    )
    flags.DEFINE_string(
        "topology", None, "with --list: the TPU slice of the hours, as v5e:4x8", flag_values=values
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-sweep and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    sys.exit(cli.run(work, doc=__doc__, define=define, argv=argv, records="paper/", goes_on=True))


def work(values: flags.FlagValues, sweep: FrozenConfigDict) -> None:
    """Does what the flags of the command ask for.

    Args:
      values: The flags.
      sweep: The config of the sweep.

    Raises:
      UserError: A flag or a key is at fault; nothing has run.
      FailedError: A point has failed, after all others were run.
      HostError: The disk is full, or another process is lost.
      PreemptedError: A signal asked the run to stop; its state is saved.
    """
    if not values.workdir:
        raise UserError("--workdir: required, the folder that the sweep is kept in")
    if sum((values.list, values.gather, values.index is not None)) > 1:
        raise UserError("--list, --index, --gather: only one of them at a time")
    if values.topology and not values.list:
        raise UserError("--topology: only with --list, which says how long points take")
    studies.check(sweep)
    for name, measure in sweep.measures.items():
        check_measure(name, measure)
    root = workdirs.place(values.workdir)
    devices = chips.parse(values.topology).size if values.topology else jax.device_count()
    points = studies.expand(sweep, root, devices=devices)
    if values.index is not None and not 0 <= values.index < len(points):
        raise UserError(f"--index={values.index}: must be from 0 to {len(points) - 1}")
    contents.check([point for point in points if not turns.is_done(point)], root)
    if processes.is_primary() and (line := contents.of_other_studies(points, root)):
        print(line, file=sys.stderr, flush=True)
    if values.gather and not root.is_dir():
        raise UserError(f"--workdir={values.workdir}: no such folder")
    if values.list:
        processes.say(listing(points, values.topology))
    elif values.gather:
        gather(sweep, points, root)
    else:
        run(sweep, points, root, values.index)


def listing(points: Sequence[studies.Point], topology: str | None) -> str:
    """The lines of the points with their cost.

    Args:
      points: The points.
      topology: The TPU slice that the hours are those of; None: this machine.

    Raises:
      UserError: The images are not here, and there is no topology either.
      HostError: The TPU compiler is not installed, or failed.
    """
    counted = costs.Counted()
    first = counted.config(points[0].config)
    if topology:
        rate, how = _planned_rate(first, topology), f"by plan of the first point on {topology}"
        rates = {costs.per_image(first): [rate]}
    elif rates := costs.known_rates(points, counted):
        how = "by the runs that are finished"
    else:
        source = counted.source(first)
        if source is None:
            raise UserError("--list: needs the images here, or --topology, to tell the hours")
        progress.note("timing a few steps of the first point")
        rates = {costs.per_image(first): [costs.time_steps(first, source)]}
        how = "by a few steps of the first point that were timed on this machine"
    return costs.listing(points, counted, costs.by_rates(rates), how)


def _planned_rate(config: FrozenConfigDict, topology: str) -> float:
    """The images in a second of a run's step on a TPU slice at best, by simclr-plan."""
    config = plans.checked(config, topology)
    compiled = plans.compile_step(config, topology)
    if "needs" in compiled:
        raise plans.does_not_fit(config, topology, compiled["needs"])
    return plans.plan(config, topology, compiled)["images_per_second"]


def check_measure(name: str, measure: ConfigDict) -> None:
    """Raises UserError where the evaluation of a measure is not allowed."""
    if len(measure.eval):
        try:
            evaluation.check(measure.eval)
        except UserError as error:
            raise UserError(f"measure {name}: {error}") from error
        if share := overrides.get(measure.eval, "transfer.share"):
            raise rules.wrong(f"measures.{name}.eval.transfer.share", share, "None in a sweep")


def run(
    sweep: FrozenConfigDict, points: Sequence[studies.Point], root: epath.Path, index: int | None
) -> None:
    """Runs all points that are not done, or one, and gathers the table of all.

    Args:
      sweep: The config of the sweep.
      points: Its points.
      root: Its folder.
      index: The number of the only point to run; None: all of them.

    Raises:
      UserError: The images of a point are not as its keys say; nothing has run.
      FailedError: A point has failed.
    """
    to_do = [point for point in points if not turns.is_done(point)]
    if to_do and index is None:
        _can_draw(sweep)  # What is missing is said before hours of training.
    with sources.shared():
        _check_images(to_do if index is None else points[index : index + 1], root)
        workdirs.make(str(root))
        _share_programs(root)
        if index is None:
            failed = turns.run_all(points, root, _attempt)
        else:
            failed = turns.run_one(points, root, index, _attempt)
    if index is None:
        gather(sweep, points, root)
    if failed:
        raise FailedError(
            f"{len(failed)} of {len(points)} points failed: {in_words(failed)}; the same command "
            "tries them again"
        )


def in_words(failed: Mapping[str, str]) -> str:
    """The names of the points that have failed, with the reason after those that share it.

    >>> in_words({"a": "no such folder", "b": "no such folder", "c": "diverged"})
    'a, b (no such folder); c (diverged)'
    """
    names: dict[str, list[str]] = {}
    for name, line in failed.items():
        names.setdefault(line, []).append(name)
    return "; ".join(f"{', '.join(of_line)} ({line})" for line, of_line in names.items())


def _check_images(points: Sequence[studies.Point], root: epath.Path) -> None:
    """Raises an error where images cannot be opened; each dataset is opened once.

    The index that a dataset has in a bucket is that of the sweep.
    """
    opened = set()
    for point in points:
        config = point.config
        given = {**config.data.to_dict(), "label_seed": 0}
        key = str((given, config.objective.name, config.train.batch_size))
        if key not in opened:
            opened.add(key)
            try:
                sources.open_splits(sources.indexed_in(config, str(root)))
            except (ArgumentError, UserError) as error:
                raise UserError(f"point {point.name}: {cli.explained(error)}") from error


def _share_programs(root: epath.Path) -> None:
    """Keeps compiled programs for points that compute the same, in the sweep's folder.

    A place for them that was chosen otherwise, as by JAX_COMPILATION_CACHE_DIR, stays.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _attempt(point: studies.Point) -> str | None:
    """Runs a point; returns why it failed, which its folder keeps, or None.

    Raises:
      HostError: The environment has failed, which concerns all points.
      PreemptedError: A signal asked the run to stop; its state is saved.
    """
    try:
        _run_point(point)
        return None
    except PreemptedError:
        raise
    except Exception as error:
        explained = cli.explained(error)
        if isinstance(explained, HostError) and not meshes.is_out_of_memory(error):
            raise
        line = one_line(explained, 300)
        if not cli.is_expected(explained):
            traceback.print_exc()
            line = f"{type(error).__name__}: {line}"
        # Where this process alone has failed, the others wait for it within the point.
        processes.meet("failed", seconds=FAILED_SECONDS)
        if processes.is_primary():
            print(f"point {point.name} failed: {line}", file=sys.stderr, flush=True)
            measured.fail(point, line)
        return line
    finally:
        jax.clear_caches()  # Else the programs of all points would stay in memory.


def _run_point(point: studies.Point) -> None:
    """Trains a point, from its newest checkpoint, and takes the measures that are missing."""
    if not processes.from_primary([int(bool(measured.read(point)))])[0]:
        train.train(point.config, str(point.folder))
        _in_primary(measured.finish_run, point)
    taken = measured.values(point)
    missing = processes.from_primary([int(name not in taken) for name in point.measures])
    found: dict[str, results.Result] = {}  # Several measures may be of one evaluation.
    for (name, measure), is_missing in zip(point.measures.items(), missing, strict=True):
        if not is_missing:
            continue
        if len(measure.eval):
            key = f"{measure.untrained} {measure.eval.to_json()}"
            if key not in found:
                (found[key],) = evaluation.evaluate(
                    measure.eval, str(point.folder), untrained=measure.untrained
                )
            value = measured.of_result(found[key], measure.metric, name)
        else:
            value = measured.of_run(point, measure.metric, name)
        _in_primary(measured.add, point, name, value)


def _in_primary(write: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in process 0, and waits for it in the others."""
    if processes.is_primary():
        write(*arguments)
    processes.meet()


def gather(sweep: FrozenConfigDict, points: Sequence[studies.Point], root: epath.Path) -> None:
    """Writes the table and the figure of a sweep, in process 0, and prints the table."""
    if not processes.is_primary():
        return
    table = gathered.gather(sweep, points)
    text = tables.markdown(table)
    files.write_json(root / "table.json", table)
    files.write_text(root / "table.md", text)
    print(text)
    measured_any = any(cell["values"] for cell in table["cells"])
    drawn = plots.draw(table) if measured_any and _can_draw(sweep) else {}
    for name, content in drawn.items():
        files.write(root / name, content)
    print(f"{'table and figure' if drawn else 'table'} in {root}", flush=True)
    if measured_any:
        runs, page = (shlex.quote(str(root / name)) for name in ("points", "runs.html"))
        print(f"next: simclr-report {runs}/* --html={page} compares the runs", flush=True)


def _can_draw(sweep: FrozenConfigDict) -> bool:
    """Whether a sweep has a figure that can be drawn; process 0 says what is missing for it."""
    missing = sweep.figure.kind != "none" and not plots.can_draw()
    if missing and processes.is_primary():
        print(f"{plots.MISSING}; there is a table without one", file=sys.stderr, flush=True)
    return not missing


if __name__ == "__main__":
    main()
