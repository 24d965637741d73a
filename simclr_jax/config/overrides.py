"""Loads a config from the command line: a file, and other values of some of its keys."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from simclr_jax.config import shipped
from simclr_jax.errors import UserError


def load(argv: Sequence[str]) -> FrozenConfigDict:
    """Loads `--config=FILE[:ARGUMENTS]` with its `--config.key=value` overrides.

    Args:
      argv: These flags alone, without the program's name. FILE is a path, or the name of a record
        that comes with the package.

    Returns:
      The config with the overrides.

    Raises:
      UserError: The file is missing or fails, a key is unknown, or a value has the wrong type.
    """
    given = [value for flag, value in map(_split, argv) if flag == "config"]
    if not given or not given[-1]:
        raise UserError("--config: required, a file such as configs/digits.py")
    path, colon, arguments = given[-1].partition(":")
    file = Path(path) if Path(path).is_file() else shipped.find(path)
    if file is None:
        raise UserError(
            f"--config={given[-1]}: no such file {path!r}, nor a record of that name "
            f"({', '.join(shipped.records())})"
        )
    flag = f"--config={file}{colon}{arguments}"
    overrides = [arg for arg in argv if _split(arg)[0].startswith("config.")]
    try:
        config = _parse([flag])
        config.lock()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        if not isinstance(error, flags.Error):  # absl names the error in its last line.
            reason = f"{type(error).__name__}: {reason}"
        raise UserError(f"--config={given[-1]}: {reason}") from error
    known = keys(config)
    for override in overrides:
        key, value = _split(override)
        _check_override(key, value, override, known, flag)
    return FrozenConfigDict(_parse([flag, *overrides]))


def _check_override(key: str, value: str, override: str, known: dict[str, Any], flag: str) -> None:
    """Raises UserError where the key of an override is unknown or its value has another type."""
    name = key.removeprefix("config.")
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean config.{close[0]}?" if close else f"; keys: {', '.join(known)}"
        raise UserError(f"{override.lstrip('-')}: unknown key {key}{hint}")
    if "=" not in override and known[name] is not bool:
        raise UserError(f"--{key}: write --{key}=VALUE, a {known[name].__name__}")
    try:
        _parse([flag, override])
    except (flags.Error, TypeError, ValueError, AttributeError) as error:
        kind = known[name].__name__
        raise UserError(f"{key}={value}: not a {kind}, which this key takes") from error


def _parse(argv: list[str]) -> ConfigDict:
    """The config that ml_collections makes of --config and its overrides."""
    values = flags.FlagValues()
    argv = ["simclr", *argv]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    config = holder.value
    if not isinstance(config, ConfigDict):
        raise TypeError(f"get_config returned {type(config).__name__}, not a ConfigDict")
    return config


def _split(arg: str) -> tuple[str, str]:
    """The name and the value of --name=value."""
    flag, _, value = arg.lstrip("-").partition("=")
    return flag, value


def keys(config: ConfigDict, prefix: str = "") -> dict[str, type]:
    """The type of every value of a config by its dotted key.

    >>> keys(ConfigDict({"seed": 0, "data": {"name": "digits"}}))
    {'data.name': <class 'str'>, 'seed': <class 'int'>}

    Args:
      config: The config.
      prefix: The text that goes before every key.
    """
    found: dict[str, type] = {}
    for name in config:
        if isinstance(config[name], ConfigDict):
            found |= keys(config[name], f"{prefix}{name}.")
        else:
            found[prefix + name] = config.get_type(name)
    return found


def get(config: ConfigDict, key: str) -> Any:
    """The value of a dotted key such as 'data.name'; None where the config has no such key.

    >>> get(ConfigDict({"data": {"name": "digits"}}), "data.name")
    'digits'
    """
    value: Any = config
    for part in key.split("."):
        if part not in value:
            return None
        value = value[part]
    return value


def changed(config: ConfigDict, values: Mapping[str, Any]) -> FrozenConfigDict:
    """A copy of a config with other values of some keys, of any type.

    >>> changed(ConfigDict({"data": {"num_classes": None}}), {"data.num_classes": 10}).to_dict()
    {'data': {'num_classes': 10}}

    Args:
      config: The config, which stays as it is.
      values: The new values by dotted key.

    Returns:
      The copy.
    """
    copy = ConfigDict(config.to_dict())
    with copy.ignore_type():
        for key, value in values.items():
            *sections, name = key.split(".")
            section = copy
            for each in sections:
                section = section[each]
            section[name] = value
    return FrozenConfigDict(copy)
