"""The datasets that TFDS has prepared in a folder: which there are, in which versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from etils import epath, epy

from simclr_jax import processes
from simclr_jax.errors import ArgumentError, is_of_storage
from simclr_jax.store import files, outage

with epy.lazy_imports():
    import tensorflow_datasets as tfds

_INFO = "dataset_info.json"  # The file that each version of a dataset has in its folder.
_NAMED = 20  # The largest number of prepared datasets that a message names.


def open_builder(name: str, directory: str | None) -> Any:
    """Finds a prepared dataset, as TFDS's DatasetBuilder.

    A folder one level above TFDS's data_dir, or up to three levels below it, is recognised, and
    said.

    Args:
      name: The name of the dataset, such as 'cifar10', 'cifar10:3.0.2' or 'imagenet_v2/topimages'.
      directory: TFDS's data_dir. With None it is the environment variable TFDS_DATA_DIR, or else
        the default of TFDS.

    Raises:
      ArgumentError: There is no such dataset, or it is not prepared there. The message names the
        versions, or else the datasets, that are.
    """
    base, _, version = name.partition(":")
    root = epath.Path(
        directory or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    ).expanduser()
    if not _versions(root, base):
        if _is_version(root, base, version):
            processes.say(f"{root} is the folder of {base}'s version {root.name}, which is read")
            return tfds.builder_from_directory(root)
        if nearby := _data_dir_near(root, base):
            processes.say(f"{root} is not TFDS's data_dir: {base} is read from {nearby}")
            root = nearby
    code = ""
    try:
        builder = tfds.builder(name, data_dir=os.fspath(root))
        code = str(builder.version)
        if builder.info.splits:
            return builder
    except Exception as error:  # TFDS raises errors of many types for an unknown name.
        if is_of_storage(error) and not outage.is_missing(error):
            raise
        raise _not_there(name, root, directory, code) from error
    raise _not_there(name, root, directory, code)


def _not_there(name: str, root: epath.Path, directory: str | None, code: str) -> ArgumentError:
    """The error for a dataset that is not prepared.

    Args:
      name: The name of the dataset.
      root: The data_dir that was searched.
      directory: The data_dir as the user gave it.
      code: The version of the dataset that TFDS has code for, or '' for none.
    """
    base = name.partition(":")[0]
    wanted = f"version {code} of TFDS's code is " if code and ":" not in name else ""
    versions = _versions(root, base) or _versions(root, base.partition("/")[0])
    if versions:
        reason = f"{wanted}not prepared in {root}, where there is {', '.join(versions)}"
        return ArgumentError("name", name, f"{reason}; name one of these")
    datasets = [folder.name for folder in _subfolders(root) if _versions(root, folder.name)]
    shown = ", ".join(datasets[:_NAMED])
    more = f" and {len(datasets) - _NAMED} more" if len(datasets) > _NAMED else ""
    there = f", where there is {shown}{more}" if datasets else ""
    if code:
        return ArgumentError(
            "directory",
            directory,
            f"{name!r} is not prepared in {root}{there}; prepare it with `tfds build {name}`, or "
            "name the data_dir that holds it",
        )
    return ArgumentError(
        "name",
        name,
        f"not 'folder' or 'digits', no dataset that TFDS knows, and none prepared in {root}{there}",
    )


def _versions(root: epath.Path, base: str) -> list[str]:
    """The versions of a dataset that are prepared in a data_dir, such as 'cifar10:3.0.2'."""
    found = []
    for folder in _subfolders(root / base):
        if (folder / _INFO).exists():
            found.append(f"{base}:{folder.name}")
        elif "/" not in base:  # A folder of a config, with versions of its own.
            found += _versions(root, f"{base}/{folder.name}")
    return found


def _is_version(folder: epath.Path, base: str, version: str) -> bool:
    """Whether a folder is itself that of a dataset's version ('' for any)."""
    if not (folder / _INFO).exists() or version not in ("", folder.name):
        return False
    config = base.split("/")[1:]
    above = [parent.name for parent in _absolute(folder).parents[:2]]
    return base.split("/")[0] in above and (not config or config[0] == above[0])


def _data_dir_near(folder: epath.Path, base: str) -> epath.Path | None:
    """The data_dir with a dataset, if a folder is the dataset's own or just above the data_dir."""
    dataset, absolute = base.split("/")[0], _absolute(folder)
    inside = [
        above for above in absolute.parents[:3] if absolute.relative_to(above).parts[0] == dataset
    ]
    near = [data_dir for data_dir in [*inside, *_subfolders(folder)] if _versions(data_dir, base)]
    return near[0] if len(near) == 1 else None


def _absolute(path: epath.Path) -> epath.Path:
    return path if files.is_remote(path) else epath.Path(os.path.abspath(path))


def _subfolders(folder: epath.Path) -> Iterator[epath.Path]:
    """The visible folders in a folder, sorted; none where there is no folder to be listed."""
    try:
        for entry in sorted(folder.iterdir()):
            if not entry.name.startswith(".") and entry.is_dir():
                yield entry
    except Exception as error:
        if not (outage.is_missing(error) or isinstance(error, PermissionError)):
            raise
