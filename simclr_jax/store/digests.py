"""The digests of a checkpoint, which reveal a flipped bit.

They are the SHA-256 of each array and of the description of the run, saved beside both, with a
digest of all these digests.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from simclr_jax import mesh as meshes
from simclr_jax.errors import FileError

Digests = dict[str, Any]  # The digests of a checkpoint; see `of_checkpoint`.


class DamagedError(Exception):
    """A checkpoint is not what was saved; the message says what is wrong."""


def of_checkpoint(step: int, items: dict[str, Any], config: dict[str, Any]) -> Digests:
    """The digests of a checkpoint that is to be saved.

    Args:
      step: The step of the checkpoint.
      items: The trees of arrays by the name of the item.
      config: The description of the run.

    Returns:
      "step", "arrays" (see `of_arrays`), "config", and "these", the digest of the three.
    """
    digests: Digests = {"step": step, "arrays": of_arrays(items), "config": of_json(config)}
    return digests | {"these": of_json(digests)}


def of_arrays(items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The digest of each array by the path ITEM/PATH/OF/LEAF.

    >>> of_arrays({"model": {"bias": jax.numpy.zeros(2)}})["model/bias"]["shape"]
    [2]

    Args:
      items: The trees of arrays by the name of the item. All processes call this together if
        arrays are split over the devices of several.

    Returns:
      "shape", "dtype" and "sha256" by path.
    """

    def digest(leaf: Any) -> dict[str, Any]:
        array = meshes.on_host(leaf)
        return {**_kind(array), "sha256": hashlib.sha256(array.tobytes()).hexdigest()}

    leaves = _leaves(items)
    for path, leaf in leaves.items():
        # Here and not in a thread, so that all processes gather the arrays in one order.
        if meshes.is_elsewhere(leaf):
            leaves[path] = meshes.on_host(leaf)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(leaves, pool.map(digest, leaves.values()), strict=True))


def of_json(value: Any) -> str:
    """The SHA-256 of a value as JSON, whose keys are sorted.

    >>> of_json({"a": 1, "b": 2}) == of_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def checked(digests: Any, config: Any, step: int) -> Digests:
    """Checks digests that were read, and returns them without "these".

    Args:
      digests: The digests.
      config: The description of the run that was read with them.
      step: The step of the checkpoint.

    Raises:
      DamagedError: The digests, the description or the step are not those that were saved.
    """
    if not isinstance(digests, dict) or digests.pop("these", None) != of_json(digests):
        raise DamagedError("its digests are not what was saved")
    if digests["config"] != of_json(config):
        raise DamagedError("its config is not what was saved")
    if digests.get("step", step) != step:
        raise DamagedError(f"it is checkpoint {digests['step']} under another number")
    return digests


def check_kinds(wanted: dict[str, Any], digests: Digests, where: str) -> None:
    """Checks that the stored arrays have the wanted names, shapes and dtypes.

    Args:
      wanted: The trees that are to be restored, by the name of the item.
      digests: The digests of the checkpoint.
      where: The path of the checkpoint, for the message.

    Raises:
      FileError: They do not: the checkpoint is of another network.
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
    """Checks that the arrays that were read are those that were saved.

    Args:
      items: The trees of arrays by the name of the item.
      digests: The digests of the checkpoint.

    Raises:
      DamagedError: An array has another digest.
    """
    for path, digest in of_arrays(items).items():
        if digest != digests["arrays"][path]:
            raise DamagedError(f"{path} is not what was saved")


def _leaves(items: dict[str, Any]) -> dict[str, Any]:
    """The leaves of the items by the path ITEM/PATH/OF/LEAF."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(items)[0]
    }


def _kind(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _in_words(kind: dict[str, Any] | None) -> str:
    return "missing" if kind is None else f"{kind['dtype']}{tuple(kind['shape'])}"
