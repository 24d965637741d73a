"""Storage that is out of reach for a while: reads are tried again, and given up in the end.

Only a file that is not there is a fault of the data. Any other error of a read is one of the disk,
the mount or the bucket.
"""

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from etils import epath

from simclr_jax.errors import HostError, is_of_storage, one_line
from simclr_jax.store.files import is_remote

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # The seconds before each further try of a read.
MISSING = "missing"  # The reason why an image whose file is not there cannot be read.
_SAID_SECONDS = 30.0  # The shortest time between two messages of an outage.

# The error numbers of a path at which there is no file.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}

_log = logging.getLogger(__name__)
_lock = threading.Lock()  # Several threads notice an outage at once.
_said_at = -_SAID_SECONDS
_T = TypeVar("_T")


def patiently(read: Callable[[], _T], name: str | os.PathLike[str]) -> _T:
    """The result of a read that is tried again while the storage is out of reach.

    Args:
      read: The function that reads.
      name: What is read, for messages.

    Raises:
      HostError: The storage is out of reach after all `DELAYS`.
      Exception: Any other error of `read`, one of `is_missing` too, at once.
    """
    for delay in (*DELAYS, None):
        try:
            return read()
        except Exception as error:
            if is_missing(error) or not is_of_storage(error):
                raise
            reason = one_line(error, 300)
            if delay is None:
                raise HostError(
                    f"{os.fspath(name)}: cannot be read ({reason}), tried again for "
                    f"{sum(DELAYS):.0f} s; check the disk or the bucket that it is on, and run the "
                    "same command again"
                ) from error
            _say(name, reason)
        time.sleep(delay)
    raise AssertionError("the last try returns or raises")


def is_missing(error: Exception) -> bool:
    """Whether an error of a read says that there is no such file.

    >>> is_missing(FileNotFoundError()), is_missing(PermissionError())
    (True, False)
    """
    kind = type(error)
    of_tensorflow = kind.__module__.startswith("tensorflow") and kind.__name__ == "NotFoundError"
    if isinstance(error, FileNotFoundError) or of_tensorflow:
        return True
    return isinstance(error, OSError) and error.errno in _NO_FILE


def is_dir(path: epath.PathLike) -> bool:
    """Whether there is a folder, which an outage is not taken to answer.

    Raises:
      HostError: The storage is out of reach, or it may not be looked at.
    """
    if is_remote(path):
        return patiently(epath.Path(path).is_dir, path)
    mode = patiently(lambda: _mode(path), path)
    return mode is not None and stat.S_ISDIR(mode)


def exists(path: epath.PathLike) -> bool:
    """Whether there is a file or a folder, which an outage is not taken to answer.

    Raises:
      HostError: The storage is out of reach, or it may not be looked at.
    """
    if is_remote(path):
        return patiently(epath.Path(path).exists, path)
    return patiently(lambda: _mode(path), path) is not None


def _mode(path: epath.PathLike) -> int | None:
    """The type and the permissions of what is at a path on a disk; None: there is nothing."""
    try:
        return os.stat(path).st_mode
    except PermissionError as error:  # It is not tried again, for it does not pass.
        raise HostError(f"{os.fspath(path)}: cannot be looked at ({error.strerror})") from error
    except ValueError:  # No file can have such a name.
        return None
    except OSError as error:
        if is_missing(error):
            return None
        raise


def _say(name: str | os.PathLike[str], reason: str) -> None:
    """Logs that a read is tried again, once for many reads."""
    global _said_at
    with _lock:
        if time.monotonic() - _said_at < _SAID_SECONDS:
            return
        _said_at = time.monotonic()
    _log.warning(
        "%r cannot be read (%s): trying again for %d s", os.fspath(name), reason, sum(DELAYS)
    )
