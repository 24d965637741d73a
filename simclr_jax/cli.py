"""The command line that all binaries share: flags, help, error messages and exit status."""

import contextlib
import difflib
import io
import logging
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from signal import SIGTERM

from absl import flags
from etils import epy

from simclr_jax.config import kinds, manual, overrides
from simclr_jax.errors import (
    PREEMPTED,
    ArgumentError,
    DifferenceError,
    DivergedError,
    FailedError,
    FileError,
    HostError,
    PreemptedError,
    UserError,
    as_host_error,
    one_line,
)
from simclr_jax.run import environment, programs, terminal
from simclr_jax.run.signals import Interruption
from simclr_jax.store import files

with epy.lazy_imports():  # JAX takes most of a second, which --help need not wait for.
    from simclr_jax import mesh as meshes
    from simclr_jax import processes

USER_ERROR = 2  # The exit status of an error in the user's input.
_UNREAD = 141  # The exit status where nobody reads the output any more, as shells have it.
_STATUS = {
    FileError: USER_ERROR,
    DifferenceError: 1,
    DivergedError: 1,
    FailedError: 1,
    UserError: USER_ERROR,
    HostError: 3,
    PreemptedError: PREEMPTED,
}
# The message for an argument that cannot be used, by its name in the library: the library knows no
# flags and no config keys.
_LINES = {
    "name": "config.data.name={value!r}: {reason}",
    "directory": "config.data.dir={value!r}: {reason}",
    "layout": "config.data.dir={value!r}: {reason}; name the folder to train on by "
    "data.train_split ('.': all of it), and one to evaluate on by data.eval_split",
    "train_split": "config.data.train_split={value!r}: {reason}",
    "eval_split": "config.data.eval_split={value!r}: {reason}",
    "validation_split": "config.data.validation_split={value!r}: {reason}",
    "image_key": "config.data.image_key={value!r}: {reason}",
    "label_key": "config.data.label_key={value!r}: {reason}, or data.num_classes=0 for images "
    "without labels",
    "label_fraction": "config.data.label_fraction={value!r}: {reason}",
    "labels_per_class": "config.data.labels_per_class={value!r}: {reason}",
    "label_list": "config.data.label_list={value!r}: {reason}",
    "per_class": "config.linear.labels_per_class={value!r}: {reason}",
    "held_out": "config.data.held_out={value!r}: {reason}, or name data.eval_split",
    "on_bad_image": "config.data.on_bad_image={value!r}: {reason}",
    "labelled": "config.data.name: {reason}; to use the images without labels set "
    "data.num_classes=0",
    "source": "config.data.dir: {reason}",
    "tracker": "config.log.tracker={value!r}: {reason}",
    "workdir": "--workdir={value}: {reason}",
    "to": "--to={value}: {reason}",
    "path": "--from={value}: {reason}",
    "averages": "--averages={value}: {reason}",
    "classifier_layer": "--classifier_layer={value}: {reason}",
    "format": "--format={value}: {reason}",
    "process_id": "--process_id={value}: {reason}",
    "topology": "--topology={value}: {reason}",
}
_OUT_OF_MEMORY = (
    "a device's memory is used up; let it hold less at a time: more config.train.microbatches, "
    "config.model.remat=block or a smaller config.train.batch_size, in an evaluation a smaller "
    "config.features.batch_size"
)
_PLATFORMS = ("cpu", "gpu", "cuda", "rocm", "tpu")  # The names that JAX knows.
# A file where a folder belongs, or a folder where a file belongs.
_MISPLACED = (IsADirectoryError, NotADirectoryError, FileExistsError)


def run(
    main: Callable[..., None],
    *,
    doc: str | None,
    define: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    takes_config: bool = True,
    joins: bool = True,
    records: str = "",
    goes_on: bool = False,
) -> int:
    """Parses the flags and the config, calls main(values, config), and returns the exit status.

    Args:
      main: The work of the binary; without a config it is called as main(values).
      doc: The docstring of the binary's module, which --help prints.
      define: The function that defines the binary's flags, besides --config.
      argv: The command line without the program's name; None: that of the process.
      takes_config: Whether the binary has --config.
      joins: Whether several processes of the binary can work together.
      records: What the names of the records begin with that --config takes, such as 'eval/'.
      goes_on: Whether SIGTERM at any moment is a preemption, after which the command goes on.

    Returns:
      0, or the status of the error whose message was printed.

    Raises:
      Exception: Any error that is a bug, not the user's or the environment's.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    _open_streams()
    joined = False
    with Interruption(files.remove_unfinished, {SIGTERM: PREEMPTED} if goes_on else {}):
        try:
            values = flags.FlagValues()
            define(values)
            _define_shared(values, joins)
            about_config, rest = divide(argv)
            about = about_config if takes_config else None
            if "--version" in rest:
                print(version())
                return 0
            if {"--help", "-h"} & {*rest}:
                _help(doc, values, about, records)
                return 0
            _parse(values, rest if takes_config else [*about_config, *rest], about)
            arguments = [kinds.load(about_config, records)] if takes_config else []
            environment.prepare()
            if joins:
                addresses = values.coordinator, values.num_processes, values.process_id
                _check_processes(*addresses)
                processes.join(*addresses, on_a_tpu=environment.has_tpu())
                joined = True
                programs.share()
            with terminal.quiet(values.quiet):
                main(values, *arguments)
                processes.meet()  # Process 0 may still write when the others are done.
            return 0
        except Exception as error:
            return _status_of(explained(error), joined=joined)


def _help(
    doc: str | None, values: flags.FlagValues, about_config: Sequence[str] | None, records: str
) -> None:
    """Prints what a binary does, its flags and its keys; about_config is None without --config."""
    config = [] if about_config is None else manual.of_config(records)
    print(doc, "Flags:", *config, *manual.of_flags(values), sep="\n")
    if about_config is not None:
        named = any(re.match("--?config(=|$)", arg) for arg in about_config)
        print("\nKeys:", *manual.of_keys(about_config if named else [], records), sep="\n")


def _reader_has_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more; then it is closed without a word."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    left = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def _open_streams() -> None:
    """Opens what was closed before the process began, and sends the log to stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # A terminal may not know every character.
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("simclr_jax")
    log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
    logging.getLogger("absl").setLevel(logging.ERROR)


def version() -> str:
    """The version of the package, and of those that its results depend on most."""
    others = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax"))
    python = ".".join(map(str, sys.version_info[:3]))
    return f"simclr_jax {metadata.version('simclr_jax')} ({others}, Python {python})"


def _define_shared(values: flags.FlagValues, joins: bool) -> None:
    """Defines --quiet, and with `joins` --coordinator, --num_processes and --process_id."""
    flags.DEFINE_boolean(
        "quiet", False, "print warnings and errors only", short_name="q", flag_values=values
    )
    if not joins:
        return
    flags.DEFINE_string(
        "coordinator",
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "HOST:PORT of process 0, for a run of several processes; TPU slices, Slurm and Open MPI "
        "are found without it",
        flag_values=values,
    )
    for name, what in ("num_processes", "how many"), ("process_id", "of this one, from 0"):
        flags.DEFINE_integer(
            name,
            os.environ.get(f"JAX_{name.upper()}"),
            f"{what}, with --coordinator",
            flag_values=values,
        )


def _check_processes(coordinator: str | None, count: int | None, own: int | None) -> None:
    """Raises UserError unless the three flags go together."""
    if coordinator is None:
        for name, value in (("num_processes", count), ("process_id", own)):
            if value is not None:
                raise UserError(f"--{name}={value}: needs --coordinator=HOST:PORT as well")
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT")
    if count is None or count < 1:
        raise UserError(f"--num_processes={count}: must be at least 1, with --coordinator")
    if own is None or not 0 <= own < count:
        raise UserError(f"--process_id={own}: must be from 0 to {count - 1}, with --coordinator")


def named(error: ArgumentError) -> UserError:
    """The error for the user that names the key or the flag behind an argument of the library.

    >>> print(named(ArgumentError("train_split", "tain", "has no such split")))
    config.data.train_split='tain': has no such split
    """
    line = _LINES.get(error.argument, f"{error.argument}={{value!r}}: {{reason}}")
    text = isinstance(error.value, str) and error.value.lower() == "none"
    hint = " (for no value write None)" if text and line.startswith("config.") else ""
    return UserError(line.format(value=error.value, reason=error.reason + hint))


def explained(error: Exception) -> Exception:
    """The error in the user's terms, or the failure of the environment that caused it."""
    if is_expected(error):
        return error
    if isinstance(error, ArgumentError):
        return named(error)
    if isinstance(error, _MISPLACED) and error.filename:
        place = error.filename2 or error.filename  # A rename has its target in filename2.
        return UserError(f"{place}: {error.strerror}; move it away")
    if meshes.is_out_of_memory(error):
        return HostError(f"{_OUT_OF_MEMORY} ({one_line(error, 300)})")
    if meshes.is_without_backend(error):
        return _without_backend(error)
    lost = processes.as_lost(error)  # First, for a connection may be one to storage as well.
    return as_host_error(error) if lost is error else lost  # type: ignore[return-value]


def is_expected(error: Exception) -> bool:
    """Whether an error that `explained` returned is the user's or the environment's, not a bug."""
    return type(error) in _STATUS


def _without_backend(error: Exception) -> Exception:
    """The error for a platform that JAX does not know, or of which there is no device."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    unknown = [name for name in wanted.split(",") if name and name not in _PLATFORMS]
    if unknown and f"'{unknown[0]}'" in str(error):
        return UserError(
            f"JAX_PLATFORMS={wanted}: {unknown[0]!r} is not one of {', '.join(_PLATFORMS)}"
        )
    return HostError(
        f"JAX_PLATFORMS={wanted}: no such device can be used here; unset it for what there is, or "
        f"set JAX_PLATFORMS=cpu ({one_line(error, 300)})"
    )


def _status_of(error: Exception, *, joined: bool) -> int:
    """Prints an error of the user or the environment and returns its status; raises a bug."""
    if isinstance(error, BrokenPipeError) and _reader_has_left():
        return _UNREAD
    status = _STATUS.get(type(error), 1)
    expected = is_expected(error)
    if expected:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            print(one_line(error), file=sys.stderr)
    if joined and processes.several():
        if status == PREEMPTED:
            # All processes are preempted. They wait, or the first to leave would look lost.
            with contextlib.suppress(Exception):
                processes.meet()
        processes.leave(status, None if expected else error)
    if not expected:
        raise error
    return status


def divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides a command line into --config with its overrides, and everything else.

    '--flag value' becomes '--flag=value'.
    """
    joined: list[str] = []
    for arg in argv:
        if joined and not arg.startswith("-") and "=" not in joined[-1]:
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    about_config = [arg for arg in joined if re.match(r"--?(no)?config([.=]|$)", arg)]
    return about_config, [arg for arg in joined if arg not in about_config]


def _parse(values: flags.FlagValues, argv: list[str], about_config: Sequence[str] | None) -> None:
    """Parses flags; raises UserError where one is unknown or an argument is no flag.

    Args:
      values: The flags.
      argv: The command line without what is about the config.
      about_config: The rest of it, for keys that a name may mean; None: there is no --config.
    """

    def keys(name: str) -> str:
        if about_config is None:
            return " (--help lists the flags)"
        flag, dot, key = name.partition(".")
        if difflib.get_close_matches(flag.lower(), ["config"], 1, 0.6):
            return f"; did you mean --config{dot}{key}=…?"
        try:
            found = overrides.meant(name, overrides.keys(overrides.load(about_config)))
        except UserError:
            found = []
        return f"; did you mean --config.{found[0]}=…?" if found else " (--help lists the flags)"

    try:
        rest = values(["simclr", *argv])
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{error}{keys(error.flagname)}") from error
    except flags.Error as error:
        raise UserError(f"{error} (--help lists the flags)") from error
    if rest[1:]:
        name = rest[1].partition("=")[0].removeprefix("config.")
        raise UserError(
            f"{rest[1]}: unexpected argument; flags begin with --"
            + (keys(name) if "=" in rest[1] else "")
        )
