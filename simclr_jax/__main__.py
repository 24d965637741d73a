"""Lists the commands, and runs one of them: python -m simclr_jax train --config=digits …"""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from simclr_jax import cli

COMMANDS = ("train", "eval", "verify", "plan", "convert", "sweep", "preview", "report", "search")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, or lists all commands.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    command, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    command = command.removeprefix("simclr-")
    if command in COMMANDS:
        importlib.import_module(f"simclr_jax.{command}").main(rest)
    if command == "--version":
        print(cli.version())
    elif command in ("-h", "--help"):
        print("The commands of simclr_jax, each with --help:\n")
        print(*(f"  simclr-{name:<9}{about(name)}" for name in COMMANDS), sep="\n")
    else:
        print(f"{command!r}: must be one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(cli.USER_ERROR)


def about(command: str) -> str:
    """The first line of the docstring of a command's module, which is not imported for it."""
    source = Path(__file__).with_name(f"{command}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
