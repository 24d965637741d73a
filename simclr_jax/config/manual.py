"""What --help says of the keys, read from the comments beside their defaults: the one source."""

import ast
import io
import textwrap
import tokenize
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from simclr_jax.config import default, default_eval, default_sweep, overrides, shipped


def of_keys(argv: Sequence[str], kind: str) -> list[str]:
    """The lines of the keys of a config: each with its value, and what it is.

    Args:
      argv: The --config flag with its overrides, whose values are shown; empty: the defaults.
      kind: What the names of the binary's records begin with: 'eval/', 'paper/' for sweeps, or ''
        for training runs.

    Raises:
      UserError: The config cannot be loaded.
    """
    if kind == "paper/":
        return _of_sweep(overrides.load(argv) if argv else default_sweep.get_config("small"))
    files = [default.__file__] if not kind else [default_eval.__file__]
    if argv:
        configs = [overrides.load(argv)]
        files += [overrides.file_of(argv)]
    elif kind:
        names = [name for name in shipped.records() if name.startswith(kind)]
        configs = [overrides.load([f"--config={name}"]) for name in names]
        files += [str(shipped.find(name)) for name in names]
    else:
        configs = [default.get_config()]
    about = {key: text for file in files for key, text in comments(Path(file)).items()}
    keys = {key: overrides.get(config, key) for config in configs for key in in_order(config)}
    if len(configs) > 1:
        keys["protocol"] = None  # Each of the records has its own.
    lines: list[str] = []
    for key, value in keys.items():
        lines += entry(f"--config.{key}={value}", about.get(key, ""))
    return lines


def _of_sweep(config: ConfigDict) -> list[str]:
    """The lines of a sweep's own keys, and of where the keys of runs and evaluations are in it."""
    about = comments(Path(default_sweep.__file__))
    lines: list[str] = []
    for key in about:
        if key not in ("run", "points", "measures", "figure"):
            lines += entry(f"--config.{key}={overrides.get(config, key)}", about[key])
    points, measures = (
        ", ".join(default_sweep.in_order(config[section])) or "those of the config"
        for section in ("points", "measures")
    )
    return [
        *lines,
        *entry("--config.run.KEY", "A key of all points: simclr-train --help lists them."),
        *entry("--config.points.NAME.run.KEY", f"One that a point has for itself. NAME: {points}."),
        *entry(
            "--config.measures.NAME.eval.KEY",
            f"A key of a measure's evaluation: simclr-eval --help lists them. NAME: {measures}.",
        ),
    ]


def of_flags(values: flags.FlagValues) -> list[str]:
    """The lines of the flags that --help prints."""
    lines = []
    for name in sorted(values):
        flag = values[name]
        default = "" if flag.default is None else f" (default: {flag.default})"
        lines += entry(f"--{name}", f"{flag.help[0].upper()}{flag.help[1:]}{default}.")
    return lines


def of_config(kind: str) -> list[str]:
    """The lines of the flag --config: the names of the records of a kind, as in `of_keys`."""
    records = [name for name in shipped.records() if name.startswith(kind)]
    names = ", ".join(name for name in records if kind or "/" not in name)
    return entry("--config=FILE[:ARGUMENTS]", f"Required: a Python file, or one of {names}.")


def in_order(config: ConfigDict) -> list[str]:
    """The dotted keys of a config, in the order of the file that makes it where that is known."""
    order = {key: number for number, key in enumerate(comments(Path(default.__file__)))}
    return sorted(overrides.keys(config), key=lambda key: order.get(key, len(order)))


def entry(name: str, about: str) -> list[str]:
    """The lines of a flag or a key: its name, and below it what it is."""
    indent = " " * 6
    return [f"  {name}", *textwrap.wrap(about, 94, initial_indent=indent, subsequent_indent=indent)]


def comments(path: Path) -> dict[str, str]:
    """The comment of each key that a config file assigns, by the dotted key.

    A key's comment stands at the end of its line, or in the lines right above it. A section is made
    by a function (`c.data = _data()`) or in place (`c.data = data = ConfigDict()`).

    Args:
      path: The Python file, which is parsed but not run.
    """
    source = path.read_text()
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    beside = _comments(source)
    found: dict[str, str] = {}
    if "get_config" in functions:
        _read(functions["get_config"], "", functions, beside, found)
    return found


def _read(
    function: ast.FunctionDef,
    prefix: str,
    functions: dict[str, ast.FunctionDef],
    beside: dict[int, tuple[str, bool]],
    found: dict[str, str],
) -> None:
    """Adds the keys that a function assigns, which all begin with `prefix`."""
    sections: dict[str, str] = {}  # The prefix of what a local variable holds, by its name.
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if not isinstance(target, ast.Attribute) or not isinstance(target.value, ast.Name):
                continue
            key = f"{sections.get(target.value.id, prefix)}{target.attr}"
            made_by = node.value.func if isinstance(node.value, ast.Call) else None
            if isinstance(made_by, ast.Name) and made_by.id in functions:
                _read(functions[made_by.id], f"{key}.", functions, beside, found)
            for other in node.targets:
                if isinstance(other, ast.Name):
                    sections[other.id] = f"{key}."
            comment = _of(node, beside)
            if comment:
                found[key] = comment


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """The comment of each line that has one, and whether it is all of the line."""
    return {
        token.start[0]: (token.string.lstrip("# "), not token.line[: token.start[1]].strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }


def _of(node: ast.Assign, beside: dict[int, tuple[str, bool]]) -> str:
    """The comment at the end of an assignment, or in the lines above it; '' for none."""
    last = node.end_lineno or node.lineno
    if last in beside:
        return beside[last][0]
    lines: list[str] = []
    number = node.lineno - 1
    while beside.get(number, ("", False))[1]:
        lines.insert(0, beside[number][0])
        number -= 1
    return " ".join(lines)
