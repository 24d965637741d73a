"""Evaluates a checkpoint of a run by one protocol.

    simclr-eval --config=configs/eval/linear.py --run=RUN [--step=K] [--untrained] [--watch]
    simclr-eval --list --run=RUN

Writes RUN/eval/PROTOCOL/STEP/WHAT/result.json. STEP is 'untrained' for the untrained network. WHAT
has the layer, the dataset, and all keys that are not as the protocol has them. The same evaluation,
asked again, is computed again from the features that were kept, and takes its old result's place.
RUN/eval/results.jsonl has a row for each result, and --list prints them.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence

from absl import flags
from etils import epath, epy
from ml_collections import ConfigDict

from simclr_jax import cli
from simclr_jax.errors import DivergedError, UserError

with epy.lazy_imports():  # --help, most refusals and the answer to Ctrl-C need none of these.
    import jax

    from simclr_jax import processes
    from simclr_jax.config import record, rules
    from simclr_jax.evals import (
        classifier,
        coming,
        embed,
        geometry,
        knn,
        linear,
        logistic,
        results,
        retrieval,
        transfer,
        transform,
    )
    from simclr_jax.evals import task as tasks
    from simclr_jax.run import network as runs
    from simclr_jax.store import checkpoint


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-eval, besides --config, in `values`."""
    flags.DEFINE_string("run", None, "required; the run's folder", flag_values=values)
    flags.DEFINE_integer("step", None, "of the checkpoint; the newest one", flag_values=values)
    flags.DEFINE_boolean(
        "untrained", False, "evaluate the network as initialised", flag_values=values
    )
    flags.DEFINE_boolean(
        "watch", False, "evaluate each new checkpoint until the run ends", flag_values=values
    )
    flags.DEFINE_string("to", None, "the folder of the results; RUN/eval", flag_values=values)
    flags.DEFINE_boolean("list", False, "print all results and evaluate none", flag_values=values)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-eval and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """

    def work(values: flags.FlagValues, config: ConfigDict) -> None:
        found = evaluate(
            config,
            values.run,
            step=values.step,
            untrained=values.untrained,
            watch=values.watch,
            to=values.to,
        )
        if found and not values.to:
            processes.say(following(config.protocol, values.run, untrained=values.untrained))

    argv = sys.argv[1:] if argv is None else argv
    if not any(re.match(r"--?list(=(true|t|1|yes|y))?$", arg, re.IGNORECASE) for arg in argv):
        sys.exit(cli.run(work, doc=__doc__, define=define, argv=argv, records="eval/"))
    given = any(re.match(r"--?config(=|$)", arg) for arg in argv)
    sys.exit(
        cli.run(
            show,
            doc=__doc__,
            define=define,
            argv=argv,
            takes_config=given,
            joins=False,
            records="eval/",
        )
    )


def following(protocol: str, run: str, *, untrained: bool = False) -> str:
    """The command to go on with after an evaluation, as text.

    >>> following("embed", "runs/my photos")
    "next: simclr-search --run='runs/my photos' QUERY.jpg --html=found.html"
    >>> following("embed", "runs/digits", untrained=True).partition(" shows")[0]
    'next: simclr-report runs/digits'

    Args:
      protocol: The name of the protocol.
      run: The folder of the run.
      untrained: Whether it was of the untrained network, which simclr-search refuses.
    """
    if protocol == "embed" and not untrained:
        return f"next: simclr-search --run={shlex.quote(run)} QUERY.jpg --html=found.html"
    return f"next: simclr-report {shlex.quote(run)} shows all results of the run on a page"


def show(values: flags.FlagValues, config: ConfigDict | None = None) -> None:
    """Prints a line for each result of a run, or of the folder --to.

    Args:
      values: The flags.
      config: The config of a protocol, whose results alone are printed; None: those of all.

    Raises:
      UserError: There is no such run or folder, or a flag does not go with --list.
    """
    if values.step is not None or values.untrained or values.watch:
        raise UserError("--list: prints what was evaluated; leave out --step, --untrained, --watch")
    folder = epath.Path(values.to).expanduser() if values.to else runs.open_run(values.run) / "eval"
    if values.to and not folder.is_dir():
        raise UserError(f"--to={values.to}: no such folder")
    found = results.rows(folder)
    if config is not None:
        found = [row for row in found if row.get("protocol") == config.protocol]
    for row in found:
        protocol = PROTOCOLS.get(str(row.get("protocol")))
        try:
            line = protocol.in_words(row) if protocol else "a result of another version"
        except (KeyError, TypeError, ValueError):
            line = "a result that lacks numbers"
        print(f"{row['folder']}: {line}")
    print(f"results in {folder}: {len(found)}")


def evaluate(
    config: ConfigDict,
    run: str | None,
    *,
    step: int | None = None,
    untrained: bool = False,
    watch: bool = False,
    to: str | None = None,
) -> list[results.Result]:
    """Evaluates one checkpoint, the untrained network, or each checkpoint as it comes.

    Args:
      config: The config of the evaluation.
      run: The folder of the run.
      step: The step of the checkpoint; None: the newest one.
      untrained: Whether to evaluate the network as initialised instead.
      watch: Whether to evaluate each new checkpoint until the run ends.
      to: The folder of the results; None: RUN/eval.

    Returns:
      The results, without those that other commands have a part of the work to do for.

    Raises:
      UserError: A flag or a key is at fault, or there is no such run or checkpoint.
      FileError: The checkpoint is damaged.
      DivergedError: A checkpoint has features or a classifier that are not finite.
    """
    root = runs.open_run(run)
    protocol = check(config)
    if sum((untrained, watch, step is not None)) > 1:
        raise UserError("--watch, --untrained, --step: only one of them at a time")
    checkpoint.quiet()
    reader = checkpoint.Reader(root)

    if untrained:
        run_config = record.from_json(record.read(root))
        # Batch norm is calibrated on the images of the evaluation, or, where those are of another
        # dataset, on those of the run.
        same = run_config.data.name is None or not config.data.name
        images = tasks.with_data(run_config, config.data) if same else run_config
        networks: Iterable[runs.Network] = [runs.Network.untrained(run_config, images=images)]
    elif watch:
        found = (coming.unless_pruned(reader, step) for step in coming.watched(reader, root))
        networks = (network for network in found if network is not None)
    elif step is not None:
        networks = [runs.Network.trained(reader, runs.find_step(reader, str(run), step))]
    else:
        networks = [coming.newest(reader, str(run))]
    folder = results.writable(root, to)
    to_do = (tasks.Task(config, network, folder) for network in networks)
    return evaluate_all(to_do, protocol, go_on=watch)


def check(config: ConfigDict) -> tasks.Protocol:
    """Checks the config of an evaluation, and returns its protocol.

    Raises:
      UserError: There is no such protocol, or a value is not allowed.
    """
    protocol = PROTOCOLS.get(str(config.get("protocol")))
    if protocol is None:
        raise UserError(
            f"config.protocol={config.get('protocol')!r}: must be one of {', '.join(PROTOCOLS)}; "
            "is --config an evaluation's (configs/eval/…)?"
        )
    rules.check(config, {**rules.EVALUATION, **protocol.RULES}, devices=jax.device_count())
    return protocol


def evaluate_all(
    to_do: Iterable[tasks.Task], protocol: tasks.Protocol, *, go_on: bool
) -> list[results.Result]:
    """Evaluates networks by a protocol, and returns the results that there are.

    Args:
      to_do: The networks, one after another.
      protocol: The protocol.
      go_on: Whether to go on after a network without a result.

    Raises:
      DivergedError: A network has no result, since numbers are not finite.
    """
    found, diverged = [], []
    for task in to_do:
        try:
            result = evaluate_one(task, protocol)
            if result is not None:
                found.append(result)
        except DivergedError as error:
            if not go_on:
                raise
            diverged.append(error)
            if processes.is_primary():
                print(error, file=sys.stderr, flush=True)
    if diverged:
        raise DivergedError(f"no result of {len(diverged)} checkpoints; the last: {diverged[-1]}")
    return found


def evaluate_one(task: tasks.Task, protocol: tasks.Protocol) -> results.Result | None:
    """Evaluates a network by a protocol; process 0 writes result.json and prints the result.

    Returns:
      The result; None, and nothing is written, where other commands have a part of the work to do
      first.

    Raises:
      DivergedError: Numbers are not finite; there is no result.
    """
    network, data = task.network, task.run_config.data
    name = f"{task.config.protocol} of {network.name}"
    try:
        found = protocol.run(task)
    except DivergedError as error:
        of = "the untrained network" if network.step is None else f"step {network.step}"
        raise DivergedError(f"{task.config.protocol} of {of}: no result, for {error}") from error
    if found is None:
        return None
    result = {
        "protocol": task.config.protocol,
        "checkpoint_step": network.step or 0,
        "untrained": network.step is None,
        "dataset": data.name,
        "data_dir": data.dir,
        "layer": task.config.features.layer,
        "seed": task.config.seed,
        **task.seen,
        **found,
    }
    if processes.is_primary():
        print_and_write(task, result, f"{name}: {protocol.in_words(result)}")
    processes.meet()
    return result


def print_and_write(task: tasks.Task, result: results.Result, line: str) -> None:
    """Writes a result where it can be kept, and prints it even where it cannot.

    Args:
      task: The task.
      result: The result.
      line: The line to print.
    """
    where = "not kept"
    try:
        if task.root is not None and task.folder is not None:
            results.write(task.root, task.folder, {**result, "of": task.of})
            where = str(task.folder / "result.json")
            if task.run_config.log.tensorboard:
                results.show(task.root, task.folder, result)
    finally:
        print(f"{line}  ({where})", flush=True)


PROTOCOLS: dict[str, tasks.Protocol] = {
    "linear": linear,
    "logistic": logistic,
    "knn": knn,
    "classifier": classifier,
    "retrieval": retrieval,
    "geometry": geometry,
    "transform": transform,
    "transfer": transfer,
    "embed": embed,
}


if __name__ == "__main__":
    main()
