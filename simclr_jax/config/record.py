"""The description of a run in its config.json and in every checkpoint."""

import json
import platform
from importlib import metadata
from typing import Any

from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax.config import default
from simclr_jax.errors import UserError
from simclr_jax.store import files


def describe(config: ConfigDict, *, device: str, devices: int) -> dict[str, Any]:
    """The description of a run: its config, package versions and hardware, as JSON.

    Args:
      config: The config of the run.
      device: The kind of its devices, such as 'TPU v4'.
      devices: The number of its devices.

    Returns:
      "config", "versions" (by package), "device" and "devices".
    """
    packages = ("simclr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "config": json.loads(config.to_json()),
        "versions": {"python": platform.python_version(), **versions},
        "device": device,
        "devices": devices,
    }


def read(workdir: epath.Path) -> dict[str, Any]:
    """The description in the config.json of a run's folder.

    Raises:
      UserError: The file is not the description of a run.
    """
    path = workdir / "config.json"
    try:
        described = json.loads(path.read_text())
        config = from_json(described)
        for section in ("data", "model", "train"):
            config[section]  # Raises KeyError where it is missing.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not the description of a run ({error})") from error
    return described


def from_json(described: dict[str, Any]) -> FrozenConfigDict:
    """The config in a description; its lists, JSON's form of tuples, become tuples again.

    >>> from_json({"config": {"augment": {"ops": ["crop", "flip"]}}}).augment.ops
    ('crop', 'flip')

    Args:
      described: The description, of which only "config" is read. Keys that are newer than the run
        take their defaults, which compute what the run computed.
    """
    newest, stored = default.get_config().to_dict(), _with_tuples(described["config"])
    for section, values in newest.items():
        if isinstance(values, dict) and section in stored:
            stored[section] = values | stored[section]
    return FrozenConfigDict(ConfigDict(stored))


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(below) for key, below in value.items()}
    return tuple(value) if isinstance(value, list) else value


def write(workdir: epath.Path, described: dict[str, Any]) -> None:
    """Writes the description of a run to config.json in its folder."""
    files.write_json(workdir / "config.json", described)
