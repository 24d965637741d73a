"""Files that appear whole or not at all, on a disk and in a bucket.

On a disk an unfinished file lies beside its place under another name, and is renamed. A bucket has
whole objects only: they are put together in memory or in a local folder, and then uploaded.
"""

import contextlib
import importlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from simclr_jax.errors import HostError

UPLOAD_SECONDS = 5.0  # The shortest time between two uploads of one object; a bucket allows 1 s.
_unfinished: list[epath.Path] = []  # The temporary files and folders of this process.


def check_client(path: epath.PathLike) -> None:
    """Checks that Google's client is installed where a path is in Google's storage.

    Raises:
      HostError: The client is not installed.
    """
    if not str(path).startswith("gs://"):
        return
    try:
        importlib.import_module("google.cloud.storage")
    except ImportError as error:
        raise HostError(f"{path}: needs Google's client: pip install 'simclr_jax[gcs]'") from error


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is in a bucket.

    >>> is_remote("gs://bucket/run"), is_remote("runs/digits")
    (True, False)
    """
    return "://" in str(path)


def as_bytes(path: str) -> bytes:
    """The bytes of a path, by which paths are sorted and compared, the same on every machine."""
    return path.encode("utf-8", "surrogateescape")


def as_text(path: str) -> str:
    """A path as valid Unicode, with replacement characters for bytes that are no UTF-8.

    >>> as_text(os.fsdecode(b"caf\\xe9/1.jpg")) == "caf\\ufffd/1.jpg"
    True
    """
    return as_bytes(path).decode("utf-8", "replace")


def is_at(file: int, path: epath.PathLike) -> bool:
    """Whether an open file (its descriptor) is the one at a path on a disk."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def write(path: epath.PathLike, content: bytes) -> None:
    """Writes a file whose readers see either the old content or the new one."""
    if is_remote(path):
        epath.Path(path).write_bytes(content)
        return
    with replacing(path) as (unfinished,), unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text in UTF-8, as `write` does, with the paths in it as `as_text` has them."""
    write(path, as_text(text).encode())


def write_json(path: epath.PathLike, value: Any, *, indent: int = 2) -> None:
    """Writes a value as JSON, as `write` does.

    Args:
      path: The path of the file.
      value: What JSON can hold.
      indent: The number of spaces that each level is indented by.
    """
    write(path, (json.dumps(value, indent=indent) + "\n").encode())


@contextlib.contextmanager
def replacing(*targets: epath.PathLike) -> Iterator[tuple[epath.Path, ...]]:
    """A context with a temporary path for each target, where the caller makes a file or a folder.

    These take the places of the targets when the block ends, and are removed when it raises. A file
    replaces a file; a folder replaces an empty folder or none.

    Args:
      targets: The paths, on a disk or in a bucket.

    Yields:
      Local paths that do not exist yet, in the order of the targets.
    """
    places = [epath.Path(target) for target in targets]
    with contextlib.ExitStack() as stack:
        unfinished = []
        for place in places:
            folder = place.parent
            if is_remote(place):
                folder = stack.enter_context(temporary_folder())
            unfinished.append(folder / f".{place.name}.{os.getpid()}.tmp")
            stack.enter_context(_noted(unfinished[-1]))
        try:
            yield tuple(unfinished)
            for path, place in zip(unfinished, places, strict=True):
                if is_remote(place):
                    _upload(path, place)
                else:
                    os.replace(path, place)
        finally:
            for path in unfinished:
                _remove(path)


@contextlib.contextmanager
def temporary_folder() -> Iterator[epath.Path]:
    """A context with a new local folder, which is removed when the block ends."""
    with tempfile.TemporaryDirectory() as name, _noted(folder := epath.Path(name)):
        yield folder


@contextlib.contextmanager
def _noted(path: epath.Path) -> Iterator[None]:
    """A context in which `remove_unfinished` removes a path."""
    _unfinished.append(path)
    try:
        yield
    finally:
        _unfinished.remove(path)


def remove_unfinished() -> None:
    """Removes the temporary files and folders of a process that ends at once."""
    for path in [*_unfinished]:
        _remove(path)


def _upload(path: epath.Path, place: epath.Path) -> None:
    """Copies a file, or all files below a folder, the deepest first.

    The file that makes a folder a run, config.json, so comes after the files that it needs.
    """
    if not path.is_dir():
        path.copy(place, overwrite=True)
        return
    files = [epath.Path(parent) / name for parent, _, names in os.walk(path) for name in names]
    for file in sorted(files, key=lambda file: -len(file.parts)):
        file.copy(place / str(file.relative_to(path)), overwrite=True)


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class GrowingObject:
    """An object in a bucket to append to: kept in memory, and uploaded whole from time to time.

    Args:
      path: The path of the object.
      content: The bytes that it begins with.
    """

    def __init__(self, path: epath.PathLike, content: bytes = b""):
        self._path = epath.Path(path)
        self._content = bytearray(content)
        self._uploaded, self._uploaded_at = len(content), -math.inf

    def write(self, data: bytes) -> None:
        """Appends bytes; uploads where the last upload is UPLOAD_SECONDS ago."""
        self._content += data
        if time.monotonic() - self._uploaded_at > UPLOAD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Uploads the object if it has new bytes."""
        if len(self._content) > self._uploaded or self._uploaded_at < 0:
            self._path.write_bytes(bytes(self._content))
            self._uploaded, self._uploaded_at = len(self._content), time.monotonic()

    close = flush
