"""The keys of runs' configs that tell them from the defaults, or from each other."""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from simclr_jax.config import default
from simclr_jax.config.overrides import get, keys

NONE = "—"  # What stands for a key that a config lacks.


class Setting(NamedTuple):
    """A key with its values as text, by run, and its default."""

    key: str
    values: tuple[str, ...]
    default: str


def settings(configs: Sequence[ConfigDict]) -> list[Setting]:
    """All keys of some configs, sorted.

    Args:
      configs: The configs of runs.
    """
    usual = default.get_config()
    names = sorted({key for config in configs for key in keys(config)})
    return [
        Setting(key, tuple(_text(config, key) for config in configs), _text(usual, key))
        for key in names
    ]


def changed(found: Sequence[Setting]) -> list[Setting]:
    """The settings of a run that are not as by default.

    >>> changed([Setting("seed", ("0",), "0"), Setting("model.depth", ("18",), "50")])
    [Setting(key='model.depth', values=('18',), default='50')]
    """
    return [setting for setting in found if {*setting.values} != {setting.default}]


def differing(found: Sequence[Setting]) -> list[Setting]:
    """The settings in which runs differ from each other."""
    return [setting for setting in found if len({*setting.values}) > 1]


def _text(config: ConfigDict, key: str) -> str:
    if key not in keys(config):
        return NONE
    value = get(config, key)
    return value if isinstance(value, str) else repr(value)
