"""The keys that a config leaves open, for a run to choose by the time that it may take.

A config is read before the images are known and before JAX has found its devices, so that it can
only say what is wished: train.hours, with None for what is to be chosen. A run records what it has
chosen, and takes that from its record when it goes on.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import placeholder

from simclr_jax.config.overrides import changed, get
from simclr_jax.errors import UserError

# The keys that can be left open, with their types and with values by which the other keys can be
# checked before these are chosen.
OPEN: dict[str, tuple[type, Any]] = {
    "data.image_size": (int, 32),
    "augment.ops": (tuple, ("crop", "flip")),
    "augment.strength": (float, 0.5),
    "model.depth": (int, 18),
    "model.width": (float, 0.25),
    "model.stem": (str, "auto"),
    "model.dtype": (str, "float32"),
    "loss.temperature": (float, 0.5),
    "optim.lr": (float, 0.1),
    "optim.warmup_epochs": (float, 0.0),
    "train.batch_size": (int, None),
    "train.epochs": (float, 1.0),
}
# The keys that mean something else by None where no time is given.
INTERVALS = ("eval.every_epochs", "checkpoint.every_epochs")


def leave_open(config: ConfigDict, hours: float) -> None:
    """Leaves every key of `OPEN` and `INTERVALS` open, for a run of so many hours."""
    config.train.hours = hours
    for key, (kind, _) in OPEN.items():
        section, name = key.split(".")
        config[section][name] = placeholder(kind)
    for key in INTERVALS:
        section, name = key.split(".")
        config[section][name] = None


def open_keys(config: ConfigDict) -> list[str]:
    """The keys that a run of a config has to choose.

    >>> open_keys(ConfigDict({"train": {"epochs": None}}))
    []
    """
    if get(config, "train.hours") is None:
        return []
    spaced = [key for key in INTERVALS if get(config, _in_steps(key)) is None]
    return [key for key in (*OPEN, *spaced) if get(config, key) is None]


def _in_steps(key: str) -> str:
    """The key that gives an interval in steps, from the one that gives it in epochs."""
    return key.replace("every_epochs", "every_steps")


def check(config: ConfigDict) -> None:
    """Checks that the time of a run that has not begun has something to choose.

    Raises:
      UserError: The config leaves nothing open, or its objective is not contrastive.
    """
    hours = get(config, "train.hours")
    if hours is None:
        return
    if not set(open_keys(config)) - set(INTERVALS):
        raise UserError(
            f"config.train.hours={hours:g}: must be None, for this config leaves nothing open that "
            f"could be chosen for a time; --config=folder:hours={hours:g} does"
        )
    if config.objective.name != "contrastive":
        raise UserError(
            f"config.train.hours={hours:g}: must be None for "
            f"objective.name={config.objective.name}; sizes are chosen for the contrastive one"
        )


def check_closed(config: ConfigDict) -> None:
    """Checks that a config leaves no key open.

    Raises:
      UserError: It does.
    """
    for key in OPEN:
        if get(config, key) is None:
            raise UserError(
                f"config.{key}=None: must be given here; only simclr-train chooses it, for the "
                "time that train.hours gives it"
            )


def kept(config: FrozenConfigDict, stored: ConfigDict) -> FrozenConfigDict:
    """The config with what the run has chosen when it began.

    Args:
      config: The config to go on with.
      stored: The config in the record of the run.
    """
    return changed(config, {key: get(stored, key) for key in open_keys(config)})


def provisional(config: FrozenConfigDict, devices: int) -> FrozenConfigDict:
    """The config with small values for what is open, by which the others can be checked.

    Args:
      config: The config.
      devices: The number of devices.
    """
    known: Mapping[str, Any] = {key: value for key, (_, value) in OPEN.items()}
    found = {key: known.get(key) for key in open_keys(config)}
    if "train.batch_size" in found:
        found["train.batch_size"] = max(2, devices * config.train.microbatches)
    return changed(config, found) if found else config
