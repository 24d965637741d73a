"""What every binary's command line has in common: flags, help, and the exit status."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags

from simclr_jax import config as configs
from simclr_jax import processes
from simclr_jax.errors import (
    PREEMPTED,
    DifferenceError,
    DivergedError,
    HostError,
    PreemptedError,
    UserError,
    as_host_error,
)

USER_ERROR = 2
_STATUS = {
    DifferenceError: 1,
    DivergedError: 1,
    UserError: USER_ERROR,
    HostError: 3,
    PreemptedError: PREEMPTED,
}
_OTHER_KIND = (IsADirectoryError, NotADirectoryError, FileExistsError)  # than what belongs there


def run(
    main: Callable[..., None],
    *,
    doc: str | None,
    define: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    takes_config: bool = True,
    joins: bool = True,
) -> int:
    """Parses flags and the config, calls main(values, config), and returns the exit status.

    Args:
      main: the binary's work; without a config it is called as main(values).
      doc: its module's docstring, printed by --help.
      define: defines the binary's own flags, beside --config.
      argv: the command line without the program's name (default: sys.argv's).
      takes_config: whether the binary has --config.
      joins: whether it works together with the same command's other processes.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # was closed before the process began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    log = logging.getLogger("simclr_jax")
    log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
    logging.getLogger("absl").setLevel(logging.ERROR)
    values = flags.FlagValues()
    define(values)
    if joins:
        processes.define(values)
    if "--help" in argv or "-h" in argv:
        print(doc, _help(values, takes_config), sep="\n")
        return 0
    try:
        about_config, rest = _divide(argv)
        _parse(values, rest if takes_config else [*about_config, *rest])
        arguments = [configs.load(about_config)] if takes_config else []
        if joins:
            processes.join(values)
        main(values, *arguments)
        return 0
    except Exception as error:
        return _status_of(_explained(error), joined=joins)


def _explained(error: Exception) -> Exception:
    """The error, or what it comes from outside our code."""
    if type(error) in _STATUS:
        return error
    if isinstance(error, _OTHER_KIND) and error.filename:
        place = error.filename2 or error.filename  # The second one is a rename's target.
        return UserError(f"{place}: {error.strerror}; move it away")
    found = as_host_error(error)
    return processes.as_lost(error) if found is error else found  # type: ignore[return-value]


def _status_of(error: Exception, *, joined: bool) -> int:
    """Prints an error of the user's or the environment's and returns its status; raises a bug."""
    status = _STATUS.get(type(error), 1)
    expected = type(error) in _STATUS
    if expected:
        with contextlib.suppress(OSError):  # a terminal that is gone
            print(_one_line(error), file=sys.stderr)
    if joined and processes.several():
        if status == PREEMPTED:  # all of them are: the first to go must not look lost to the last
            with contextlib.suppress(Exception):
                processes.all_have(True)
        processes.leave(status, None if expected else error)
    if not expected:
        raise error
    return status


def _divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(--config and its overrides, everything else); '--flag value' becomes '--flag=value'."""
    joined: list[str] = []
    for arg in argv:
        if joined and not arg.startswith("-") and "=" not in joined[-1]:
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    about_config = [arg for arg in joined if re.match(r"--?(no)?config([.=]|$)", arg)]
    return about_config, [arg for arg in joined if arg not in about_config]


def _parse(values: flags.FlagValues, argv: list[str]) -> None:
    try:
        rest = values(["simclr", *argv])
    except flags.Error as error:
        raise UserError(f"{error} (--help lists the flags)") from error
    if rest[1:]:
        raise UserError(f"{rest[1]}: unexpected argument; flags begin with --")


def _help(values: flags.FlagValues, takes_config: bool) -> str:
    lines = ["Flags:"]
    if takes_config:
        lines.append("  --config=FILE[:ARGUMENTS]  required; override with --config.KEY=VALUE")
    for name in sorted(values):
        flag = values[name]
        lines.append(f"  --{name}  {flag.help} (default: {flag.default})")
    return "\n".join(lines)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
