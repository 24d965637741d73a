"""Digests of a checkpoint: for a flipped bit looks like any other number.

They are the SHA-256 of each array and of the config, saved beside both, with one of themselves.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from simclr_jax.errors import FileError

Digests = dict[str, Any]


class DamagedError(Exception):
    """A checkpoint is not what was saved; the message says what is wrong with it."""


def of_checkpoint(step: int, items: dict[str, Any], config: dict[str, Any]) -> Digests:
    """The digests of a checkpoint that is to be saved.

    Args:
      step: The step of the checkpoint.
      items: The trees of its arrays by the name of the item.
      config: The description of the run.

    Returns:
      "step", "arrays" (as `of_arrays`), "config", and "these", the digest of the three.
    """
    digests: Digests = {"step": step, "arrays": of_arrays(items), "config": of_json(config)}
    return digests | {"these": of_json(digests)}


def of_arrays(items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{item/path/of/leaf: {"shape", "dtype", "sha256"}}; every device holds every array whole."""

    def digest(leaf: Any) -> dict[str, Any]:
        array = np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
        return {**_kind(array), "sha256": hashlib.sha256(array.tobytes()).hexdigest()}

    leaves = _leaves(items)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(leaves, pool.map(digest, leaves.values()), strict=True))


def of_json(value: Any) -> str:
    """The digest of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def checked(digests: Any, config: Any, step: int) -> Digests:
    """The digests that were read, without their own. Raises DamagedError unless all belong."""
    if not isinstance(digests, dict) or digests.pop("these", None) != of_json(digests):
        raise DamagedError("its digests are not what was saved")
    if digests["config"] != of_json(config):
        raise DamagedError("its config is not what was saved")
    if digests.get("step", step) != step:
        raise DamagedError(f"it is checkpoint {digests['step']} under another number")
    return digests


def check_kinds(wanted: dict[str, Any], digests: Digests, where: str) -> None:
    """Raises FileError where the stored arrays have other names, shapes or dtypes than wanted.

    Args:
      wanted: The trees that are to be restored, by the name of the item.
      digests: The digests of the checkpoint.
      where: The checkpoint, for the message.
    """
    expected = {path: _kind(leaf) for path, leaf in _leaves(wanted).items()}
    stored = {
        path: {key: found[key] for key in ("shape", "dtype")}
        for path, found in digests["arrays"].items()
        if path.split("/")[0] in wanted
    }
    for path in sorted({*expected, *stored}):
        here, there = expected.get(path), stored.get(path)
        if here != there:
            raise FileError(
                f"{where}: holds another network: {path} is {_in_words(there)} there and "
                f"{_in_words(here)} in this config"
            )


def check_arrays(items: dict[str, Any], digests: Digests) -> None:
    """Raises DamagedError where an array that was read is not the one that was saved."""
    for path, digest in of_arrays(items).items():
        if digest != digests["arrays"][path]:
            raise DamagedError(f"{path} is not what was saved")


def _leaves(items: dict[str, Any]) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(items)[0]
    }


def _kind(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _in_words(kind: dict[str, Any] | None) -> str:
    return "missing" if kind is None else f"{kind['dtype']}{tuple(kind['shape'])}"
