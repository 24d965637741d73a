"""Ranges of bytes of files that are not read whole, on a disk and in a bucket.

On a disk they are read through descriptors that stay open. In Google's storage a range is one
request over a connection that stays open, without the client's own method, which takes three times
as much of the processor's time. TensorFlow, which reads any other storage, reads a block each time.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import resource
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from etils import epy

from simclr_jax.errors import one_line
from simclr_jax.store.files import is_remote

with epy.lazy_imports():
    import tensorflow as tf

_log = logging.getLogger(__name__)
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_OK, _PARTIAL, _NOT_FOUND, _BEYOND_THE_END = 200, 206, 404, 416  # HTTP's statuses of a range.
_SECONDS = 60.0  # The time limit of a request for which nothing arrives.


class Storage(NamedTuple):
    """What to ask of a kind of storage.

    Attributes:
      threads: The number of reads at a time.
      least: The number of bytes that a read takes at least, whatever is asked for.
      gap: The number of bytes between two ranges up to which it is faster to read both at once.
      longest: The number of bytes from which on a read is better divided among threads.
    """

    threads: int
    least: int
    gap: int
    longest: int


DISK = Storage(threads=16, least=1, gap=2**12, longest=2**19)
BUCKET = Storage(threads=64, least=1, gap=2**18, longest=2**21)
BLOCKS = Storage(threads=16, least=2**23, gap=2**21, longest=2**23)


def storage_of(path: str) -> Storage:
    """What to ask of the storage of a path; says once where a bucket is read in blocks."""
    if not is_remote(path):
        return DISK
    return BUCKET if _requests(path) is not None else BLOCKS


def together(starts: np.ndarray, ends: np.ndarray, storage: Storage) -> list[list[int]]:
    """Groups ranges of bytes that are read at once, for they lie beside each other, or nearly so.

    >>> together(np.array([900, 0, 10**7]), np.array([950, 800, 10**7 + 1]), DISK)
    [[1, 0], [2]]

    Args:
      starts: The position of the first byte of each range, (n,) int.
      ends: The position after the last byte of each range, (n,) int.
      storage: What they are read from.

    Returns:
      The numbers of the ranges of each group, in the order of their positions.
    """
    groups: list[list[int]] = []
    begin = end = 0
    for number in np.argsort(starts, kind="stable").tolist():
        start, stop = int(starts[number]), int(ends[number])
        near = start - end <= storage.gap and stop - begin <= storage.longest
        if groups and near:
            groups[-1].append(number)
            end = max(end, stop)
        else:
            groups.append([number])
            begin, end = start, stop
    return groups


def read(path: str, start: int, size: int) -> bytes:
    """Some bytes of a file; fewer where it ends before.

    Args:
      path: The path of the file, on a disk or in a bucket.
      start: The position of the first byte.
      size: The number of bytes.

    Raises:
      FileNotFoundError: There is no such file. TensorFlow has an error of its own for this.
      OSError: The file cannot be read. Clients of buckets have errors of their own.
    """
    if size <= 0:
        return b""
    if not is_remote(path):
        return _on_disk(path, start, size)
    if (requests := _requests(path)) is not None:
        return requests.read(path, start, size)
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(start)
        return file.read(size)


class _Descriptor:
    """An open file, which is closed when the last thread that reads it lets go of it."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if hasattr(os, "posix_fadvise"):  # Nothing is to be read beyond what is asked for.
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def _most_open() -> int:
    """The number of files that stay open: a part of those that the process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if limit == resource.RLIM_INFINITY else min(4096, limit // 2)


_descriptor = functools.lru_cache(_most_open())(_Descriptor)


def _on_disk(path: str, start: int, size: int) -> bytes:
    descriptor = _descriptor(path)
    parts: list[bytes] = []
    try:
        while size > 0 and (part := os.pread(descriptor.number, size, start)):
            parts.append(part)
            start, size = start + len(part), size - len(part)
    except OSError:
        _descriptor.cache_clear()  # A mount that comes back does not know them any more.
        raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Requests:
    """Requests for ranges of objects in Google's storage, as its JSON interface takes them.

    Args:
      http: What sends requests, with the credentials.
      address: The address of the interface.
    """

    def __init__(self, http: Any, address: str):
        self._http = http
        self._address = address

    def read(self, path: str, start: int, size: int) -> bytes:
        bucket, _, name = path.removeprefix("gs://").partition("/")
        answer = self._http.urlopen(
            "GET",
            f"{self._address}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media",
            headers={"Range": f"bytes={start}-{start + size - 1}", "Accept-Encoding": "identity"},
            timeout=_SECONDS,
        )
        if answer.status == _PARTIAL:
            return answer.data
        if answer.status == _OK:  # The range was not heeded.
            return answer.data[start : start + size]
        if answer.status == _BEYOND_THE_END:
            return b""
        if answer.status == _NOT_FOUND:
            raise FileNotFoundError(path)
        reason = " ".join(answer.data[:200].decode(errors="replace").split())
        raise OSError(f"the bucket answers with status {answer.status}: {reason}")


def _requests(path: str) -> _Requests | None:
    """What sends requests for ranges; None where the storage is another one or lacks the client."""
    return _of_google() if path.startswith("gs://") else None


@functools.lru_cache(1)
def _of_google() -> _Requests | None:
    """What sends requests to Google's storage, with the credentials that this machine has."""
    try:
        auth = importlib.import_module("google.auth")
        credentials = importlib.import_module("google.auth.credentials")
        failed = importlib.import_module("google.auth.exceptions").DefaultCredentialsError
        transport = importlib.import_module("google.auth.transport.urllib3")
        urllib3 = importlib.import_module("urllib3")
    except ImportError as error:
        _log.warning(
            "gs://: records are read in blocks of many MB, and their index takes all bytes "
            "(%s): pip install 'simclr_jax[gcs]' brings what reads exact ranges",
            one_line(error),
        )
        return None
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    try:
        if emulator:
            raise failed("an emulator needs none")
        found, _ = auth.default(scopes=[_SCOPE])
    except failed:  # Public data need no account.
        found = credentials.AnonymousCredentials()
    # A connection that was closed meanwhile is noticed by a request, and opened again.
    pool = urllib3.PoolManager(maxsize=2 * BUCKET.threads, retries=1)
    http = transport.AuthorizedHttp(found, http=pool)
    return _Requests(http, emulator or "https://storage.googleapis.com")
