"""The lock of a run's folder: one trainer at a time.

On a file system with locks it is a kernel's lock, which ends with the process. In a bucket, or
where locks are not supported, it is a file that its owner renews; a file that has not been renewed
for a while is stale, and another trainer takes it over.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from simclr_jax.errors import FULL_DISK, ArgumentError, as_host_error
from simclr_jax.store.files import is_at, is_remote

RENEW_SECONDS = 10.0  # The seconds between two renewals.
STALE_SECONDS = 40.0  # The seconds without a renewal after which a lock is stale.

# The errors of a file system that has no locks.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

_log = logging.getLogger(__name__)


class InUseError(ArgumentError):
    """The error for a folder whose lock another live process has."""


@contextlib.contextmanager
def hold(workdir: epath.Path) -> Iterator[None]:
    """A context that has the lock of a run's folder, WORKDIR/lock.

    Raises:
      InUseError: Another live trainer has the lock.
      ArgumentError: The folder cannot be written.
      HostError: The disk is full.
    """
    path = workdir / "lock"
    try:
        file = None if is_remote(path) else _kernel_lock(path)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise as_host_error(error) from error
        raise _unwritable(path, error) from error
    if file is None:
        with _File(path):
            yield
        return
    try:
        yield
    finally:
        os.ftruncate(file, 0)
        os.close(file)


def release_files() -> None:
    """Removes the locks that are files of a process that ends at once; a kernel's end with it."""
    for file in [*_held]:
        file.release()


def sign_of_life(workdir: epath.Path) -> str | None:
    """A text that changes while a trainer has the lock of a run's folder; None: there is none.

    A lock that is a file may be left behind by a trainer that was killed; it does not change then.
    """
    path = workdir / "lock"
    if (held := _is_held(path)) is not None:
        return f"held at {time.monotonic()}" if held else None
    content = _read(path)
    return content.decode(errors="replace") if content else None


@contextlib.contextmanager
def free(workdir: epath.Path) -> Iterator[None]:
    """A context at whose begin no live trainer has the lock of a run's folder; it is not taken.

    Raises:
      InUseError: Another live trainer has the lock.
    """
    path = workdir / "lock"
    held = _is_held(path)
    if held:
        raise _in_use(path, _read(path) or b"")
    if held is None:
        _wait_for(path)
    yield


def _is_held(path: epath.Path) -> bool | None:
    """Whether a process has a kernel's lock of a file; None: there are no such locks there."""
    if is_remote(path):
        return None
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    finally:
        os.close(file)


def _kernel_lock(path: epath.Path) -> int | None:
    """Opens and locks a file, and writes the owner in it; None: the file system has no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file, path)
            if is_at(file, path):
                os.ftruncate(file, 0)
                os.write(file, json.dumps(_owner()).encode())
                os.fsync(file)
                return file
        except ArgumentError:
            os.close(file)
            raise
        except OSError as error:
            os.close(file)
            if error.errno in _UNSUPPORTED:
                return None
            raise
        os.close(file)  # It was removed after it was opened.


def _lock(file: int, path: epath.Path) -> None:
    """Locks an open file; raises ArgumentError where another process has locked it."""
    for tries in reversed(range(20)):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(file, 4096, 0)
            if owner or not tries:
                raise _in_use(path, owner) from None
            time.sleep(0.05)  # The owner has not written its name yet, or is about to leave.


class _File:
    """A lock that is a file, renewed by a thread.

    Args:
      path: The path of the file.
    """

    def __init__(self, path: epath.Path):
        self._path = path
        self._me = {**_owner(), "token": uuid.uuid4().hex}
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> None:
        path = self._path
        _wait_for(path)
        try:
            self._write(0)
        except OSError as error:
            raise _unwritable(path, error) from error
        time.sleep(RENEW_SECONDS / 10)  # If two write at the same time, the later file remains.
        current = _read(path)
        if not self._is_mine(current):
            raise _in_use(path, current or b"")
        self._thread.start()
        _held.append(self)

    def __exit__(self, *_: object) -> None:
        self.release()
        _held.remove(self)

    def release(self) -> None:
        """Removes the file, and renews it no more."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            if self._is_mine(_read(self._path)):
                self._path.unlink()

    def _is_mine(self, text: bytes | None) -> bool:
        return _parsed(text).get("token") == self._me["token"]

    def _write(self, count: int) -> None:
        self._path.write_bytes(json.dumps({**self._me, "renewed": count}).encode())

    def _renew(self) -> None:
        """Renews the file, until it is released or another process has taken it over."""
        count = 0
        while not self._released.wait(RENEW_SECONDS):
            count += 1
            current: dict[str, Any] = {}
            with contextlib.suppress(Exception):  # Buckets raise many kinds; it is tried again.
                text = _read(self._path)
                current = _parsed(text)
                if "token" not in current or self._is_mine(text):
                    self._write(count)
                    continue
            if current:
                message = f"{self._path.parent}: taken over by {_in_words(current)}; this trainer"
                with contextlib.suppress(OSError):
                    os.write(2, f"{message} ends\n".encode())
                os._exit(3)


_held: list[_File] = []  # The locks of this process that are files.


def _wait_for(path: epath.Path) -> None:
    """Waits until a lock that is a file is gone or stale; raises ArgumentError if it is renewed."""
    found = _read(path)
    until = time.monotonic() + STALE_SECONDS
    if found is not None:
        owner = _in_words(_parsed(found))
        _log.warning(
            "%s: locked by %s; waiting %d s to see whether it is still renewed",
            path,
            owner,
            STALE_SECONDS,
        )
    while found is not None and time.monotonic() < until:
        time.sleep(RENEW_SECONDS / 4)
        now = _read(path)
        if now is not None and now != found:
            raise _in_use(path, now)
        found = now


def _owner() -> dict[str, Any]:
    """The description of this process in its lock."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _read(path: epath.Path) -> bytes | None:
    """The content of a file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(text: bytes | None) -> dict[str, Any]:
    """The owner in the content of a lock; {} where it has none."""
    try:
        value = json.loads(text or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _in_words(owner: dict[str, Any]) -> str:
    return (
        f"process {owner.get('pid', '?')} on {owner.get('host', '?')} "
        f"since {owner.get('since', '?')}"
    )


def _unwritable(path: epath.Path, error: OSError) -> ArgumentError:
    return ArgumentError("workdir", path.parent, f"cannot be written ({error.strerror})")


def _in_use(path: epath.Path, text: bytes) -> InUseError:
    return InUseError(
        "workdir",
        path.parent,
        f"in use by {_in_words(_parsed(text))}; wait for it or end it, or use another workdir",
    )
