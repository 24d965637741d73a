"""What lies below a folder: its image files, and the others by their endings."""

from __future__ import annotations

import collections
import importlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from etils import epath, epy

from simclr_jax.data import disk
from simclr_jax.data.images import HEAD_BYTES, format_of
from simclr_jax.store import outage
from simclr_jax.store.files import as_bytes, is_remote

with epy.lazy_imports():
    import tensorflow as tf

# The endings of image files. What a file with one of them holds is found when it is loaded.
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".jpx", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
# The ending of NumPy's arrays, which are images where there are no others: beside images they may
# be masks, features or labels.
_ARRAYS = ".npy"
_BACKUPS = (".bak", ".tmp", ".part", "~")  # The ends of names of files beside the true ones.
_SAMPLE = 16  # The number of files of an unknown ending that are looked into before all others.
_log = logging.getLogger(__name__)


@dataclass
class Listing:
    """The files below a folder, by their paths relative to it.

    Attributes:
      images: The images, sorted by the bytes of their paths.
      left_out: The number of other files by what they are, such as '.txt'.
      states: The size and the version of each image where the listing brings them along, as that
        of a bucket does.
    """

    images: list[str]
    left_out: collections.Counter[str]
    states: dict[str, tuple[int, int]] = field(default_factory=dict)


def files_below(folder: epath.Path, pool: Executor) -> Listing:
    """Lists a folder on a disk or in a bucket, once.

    Links are followed. Hidden files and folders are left out. A file is an image if it has one of
    `ENDINGS`. Files without an ending, or with another one, are looked into. Where there is no
    image, those of NumPy's arrays are the images.

    Args:
      folder: The folder.
      pool: The threads that list folders and look into files.

    Raises:
      ArgumentError: A folder cannot be read.
    """
    states: dict[str, tuple[int, int]] = {}
    left_out: collections.Counter[str] = collections.Counter()
    if str(folder).startswith("gs://"):
        found = _in_bucket(folder, states)
    elif is_remote(folder):
        found = _walk(folder)
    else:
        found = disk.below(os.fspath(folder), left_out, pool)
    images, others = [], collections.defaultdict(list)
    for path in found:
        name = path.rpartition("/")[2].lower()
        ending = "".join(name.rpartition(".")[1:]) if "." in name else ""
        if ending[1:].isdigit():  # A number, as in 'scan.0001', of which there may be thousands.
            ending = ""
        if disk.has_hidden(path):
            left_out["hidden"] += 1
        elif ending in ENDINGS:
            images.append(path)
        else:
            others["~" if name.endswith("~") else ending].append(path)
    of_arrays = others.pop(_ARRAYS, [])
    for ending, paths in others.items():
        known = [] if ending in _BACKUPS else _images_among(folder, sorted(paths), ending, pool)
        images += known
        if len(paths) > len(known):
            left_out[ending or "without an ending"] += len(paths) - len(known)
    if not images:
        images = of_arrays
    elif of_arrays:
        left_out[_ARRAYS] += len(of_arrays)
    images.sort(key=as_bytes)
    return Listing(images, left_out, states)


def _images_among(folder: epath.Path, paths: list[str], ending: str, pool: Executor) -> list[str]:
    """The paths of the files with an ending that are images by their content.

    Of a proper ending only some are looked into, unless one of these is an image.
    """

    def head(path: str) -> bytes:
        try:
            with (folder / path).open("rb") as file:
                return file.read(HEAD_BYTES)
        except (PermissionError, tf.errors.PermissionDeniedError):  # It is left out.
            return b""

    def is_image(path: str) -> bool:
        try:
            found = format_of(outage.patiently(lambda: head(path), folder / path))
            return found not in (None, "NPY")
        except (OSError, tf.errors.OpError):  # The file was deleted since it was listed.
            return False

    if ending and not any(pool.map(is_image, paths[:: max(1, len(paths) // _SAMPLE)])):
        return []
    return [path for path, image in zip(paths, pool.map(is_image, paths), strict=True) if image]


def _walk(folder: epath.Path) -> Iterator[str]:
    """Yields the relative paths of all files below a folder of any storage."""
    root = os.fspath(folder)
    for parent, _, names in folder.walk():
        below = os.fspath(parent)[len(root) :].strip("/")
        yield from (f"{below}/{name}" if below else name for name in names)


def _in_bucket(folder: epath.Path, states: dict[str, tuple[int, int]]) -> Iterator[str]:
    """Yields the relative paths of all objects below a folder of Google's storage.

    It is one recursive listing, of a call per thousand objects, which brings their states along.
    """
    try:
        storage = importlib.import_module("google.cloud.storage")
        failed = importlib.import_module("google.auth.exceptions").DefaultCredentialsError
    except ImportError:
        text = "%s: listed a folder at a time, and asked for each image's size: slow without "
        _log.warning(
            text + "google-cloud-storage, which pip install 'simclr_jax[gcs]' brings", folder
        )
        yield from _walk(folder)
        return
    try:
        client = storage.Client(project=None)  # To list needs none, and an account may have none.
    except failed:  # Public data need no account.
        client = storage.Client.create_anonymous_client()
    bucket, _, prefix = str(folder).removeprefix("gs://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    fields = "items(name,size,generation),nextPageToken"
    for item in client.list_blobs(bucket, prefix=prefix, fields=fields):
        path = item.name[len(prefix) :]
        if path and not path.endswith("/"):  # Objects of that name stand for folders.
            states[path] = item.size, item.generation
            yield path
