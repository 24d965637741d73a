"""What lies below a folder: its image files, and the others by their endings."""

from __future__ import annotations

import collections
import errno
import importlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from etils import epath, epy

from simclr_jax.data.images import HEAD_BYTES, format_of
from simclr_jax.errors import ArgumentError
from simclr_jax.store import outage
from simclr_jax.store.files import as_bytes, is_remote

with epy.lazy_imports():
    import tensorflow as tf

# The endings of image files. What a file with one of them holds is found when it is loaded.
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".jpx", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
_BACKUPS = (".bak", ".tmp", ".part", "~")  # The ends of names of files beside the true ones.
_HIDDEN = ("@eaDir", "__MACOSX", "$RECYCLE.BIN")  # Folders that systems add, besides '.…'.
_SAMPLE = 16  # The number of files of an unknown ending that are looked into before all others.
_CLASS_DEPTH = 3  # The depth of folders that may be classes, as in DATA/train/cat.
_CLOSED = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}  # Faults of one folder.
_Identity = tuple[int, int]  # The device and the number of a folder, whatever its path.
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
    `ENDINGS`. Files without an ending, or with another one, are looked into.

    Args:
      folder: The folder.
      pool: The threads that look into files.

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
        found = _on_disk(os.fspath(folder), left_out)
    images, others = [], collections.defaultdict(list)
    for path in found:
        name = path.rpartition("/")[2].lower()
        ending = os.path.splitext(name)[1]
        if ending[1:].isdigit():  # A number, as in 'scan.0001', of which there may be thousands.
            ending = ""
        if any(map(_is_hidden, path.split("/"))):
            left_out["hidden"] += 1
        elif ending in ENDINGS:
            images.append(path)
        else:
            others["~" if name.endswith("~") else ending].append(path)
    for ending, paths in others.items():
        known = [] if ending in _BACKUPS else _images_among(folder, sorted(paths), ending, pool)
        images += known
        if len(paths) > len(known):
            left_out[ending or "without an ending"] += len(paths) - len(known)
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
            return format_of(outage.patiently(lambda: head(path), folder / path)) is not None
        except (OSError, tf.errors.OpError):  # The file was deleted since it was listed.
            return False

    if ending and not any(pool.map(is_image, paths[:: max(1, len(paths) // _SAMPLE)])):
        return []
    return [path for path, image in zip(paths, pool.map(is_image, paths), strict=True) if image]


def _on_disk(root: str, left_out: collections.Counter[str]) -> Iterator[str]:
    """Yields the relative paths of all files below a folder, through links.

    In a class each folder counts once: the number of paths through folders that link to each other
    grows with the factorial of theirs.
    """
    pending: list[tuple[str, tuple[_Identity, ...]]] = [("", (_identity(os.stat(root)),))]
    entered: set[tuple[str, _Identity]] = set()
    places: dict[_Identity, str] = {}
    circles, again, twice = [], [], []
    while pending:
        below, above = pending.pop()
        folders = []
        for path, identity in _entries(root, below, left_out):
            if identity is None:
                yield path
            else:
                folders.append((path, identity))
        for path, identity in sorted(folders):  # Which of several paths counts is settled.
            known = "/".join(path.split("/")[:_CLASS_DEPTH]), identity
            if identity in above:
                circles.append(path)
            elif known in entered:
                again.append(path)
            else:
                entered.add(known)
                pending.append((path, (*above, identity)))
                if places.setdefault(identity, path) != path:
                    twice.append((places[identity], path))
    if circles:
        text = "%r links to a folder above it, and is not followed (%d such)"
        _log.warning(text, circles[0], len(circles))
    if again:
        text = "%r is a folder that its class has in another place, and is left out (%d such)"
        _log.warning(text, again[0], len(again))
    if twice:
        text = "%r and %r are the same folder (%d such by links): its images count each time"
        _log.warning(text, *twice[0], len(twice))


def _entries(
    root: str, below: str, left_out: collections.Counter[str]
) -> Iterator[tuple[str, _Identity | None]]:
    """Yields the paths of the files in a folder, and of its folders with what identifies each."""
    place = os.path.join(root, below)
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                place = entry.path
                path = f"{below}/{entry.name}" if below else entry.name
                folder, file = _is(entry)
                if file:
                    yield path, None
                elif not folder:
                    left_out["broken links or no files"] += 1
                elif not _is_hidden(entry.name):
                    yield path, _identity(entry.stat())
    except OSError as error:
        if error.errno in _CLOSED:
            reason = f"cannot be read ({error.strerror})"
            raise ArgumentError("directory", place, reason) from error
        raise


def _is(entry: os.DirEntry) -> tuple[bool, bool]:
    """Whether an entry is a folder and whether it is a file, or a link to one."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # A link that leads back to itself.
            return False, False
        raise


def _identity(state: os.stat_result) -> _Identity:
    return state.st_dev, state.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN


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
