"""What a run is made of, as config.json and every checkpoint keep it."""

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
    """What a run is made of: its config, package versions and hardware, as JSON."""
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
    """What `write` wrote in a run's folder. Raises UserError where that is not what is there."""
    path = workdir / "config.json"
    try:
        described = json.loads(path.read_text())
        config = from_json(described)
        for section in ("data", "model", "train"):
            config[section]  # KeyError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not the description of a run ({error})") from error
    return described


def from_json(described: dict[str, Any]) -> FrozenConfigDict:
    """The config in what `describe` wrote; sequences become tuples, as they were.

    Keys that are newer than the run take their defaults, which leave everything as it was.
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
    """Writes WORKDIR/config.json."""
    files.write(workdir / "config.json", (json.dumps(described, indent=2) + "\n").encode())
