"""The errors that a binary reports, and the exit status that each of them gives."""

import errno
import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

PREEMPTED = 75  # The exit status of a run that has saved a checkpoint and can be started again.

# The operating system's error numbers that are faults of the host, with their usual words.
_HOST_FAULTS = {
    number: os.strerror(number).lower()
    for number in (
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.ENOMEM),
        *(errno.EMFILE, errno.ENFILE, errno.ENOLCK),
        # A file system in the network, or a mounted bucket.
        *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET),
        *(errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
        *(errno.ENETUNREACH, errno.ESHUTDOWN),
    )
}
# The packages whose errors tell of storage in the network, and TensorFlow's errors that do.
_CLIENTS = (
    *("aiohttp", "fsspec", "gcsfs", "requests", "urllib3"),
    *("google.api_core", "google.auth", "google.cloud", "google.resumable_media"),
)
_OF_TENSORFLOW = (
    *("NotFoundError", "PermissionDeniedError", "UnauthenticatedError", "UnavailableError"),
    *("DeadlineExceededError", "AbortedError", "FailedPreconditionError", "UnknownError"),
)
# The same in a message of a library written in C++, with the bucket's address.
_OF_A_BUCKET = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|NOT_FOUND)\b"
    r".*(gs://|googleapis)"
)
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}  # The error numbers of a disk without free space.
# The error numbers of a disk out of reach. They do not show that a file is damaged.
LOST_DISK = {errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}


class UserError(Exception):
    """An error in the user's input (exit status 2).

    The message is one line that names the key or the file, the value, and what is allowed.
    """


class FileError(ValueError):
    """A file or a folder without valid content (exit status 2). The message names it."""


class ArgumentError(ValueError):
    """An argument of a function that cannot be used.

    The function that raises it does not know the config's keys. `cli` replaces the argument's name
    by the key or the flag that the value came from.

    Attributes:
      argument: The name of the argument.
      value: The value of the argument.
      reason: Why the value cannot be used, and which values are allowed.

    >>> print(ArgumentError("block_rows", 1, "must be at least 2"))
    block_rows=1: must be at least 2
    """

    def __init__(self, argument: str, value: Any, reason: str):
        super().__init__(f"{argument}={value!r}: {reason}")
        self.argument, self.value, self.reason = argument, value, reason


def chosen(options: Mapping[Any, T], argument: str, name: Any) -> T:
    """The option of a given name.

    Args:
      options: The options by name.
      argument: The name of the caller's argument, for the error.
      name: The name that was given.

    Raises:
      ArgumentError: There is no such option; the message lists those that there are.

    >>> chosen({"linear": 1, "none": 0}, "head", "convolution")
    Traceback (most recent call last):
    simclr_jax.errors.ArgumentError: head='convolution': must be one of linear, none
    """
    if name not in options:
        allowed = ", ".join(map(str, options))
        raise ArgumentError(argument, name, f"must be one of {allowed}")
    return options[name]


class HostError(Exception):
    """A fault of the environment, such as a lost process or a full disk (exit status 3)."""


class DifferenceError(Exception):
    """A difference between two results that should be equal (exit status 1)."""


class DivergedError(Exception):
    """A number of the loss, the gradients or the state that is not finite (exit status 1)."""


class FailedError(Exception):
    """A part of the work that failed, after the other parts were done (exit status 1)."""


class PreemptedError(Exception):
    """The end of a run that was asked to stop, after its checkpoint is saved (exit status 75)."""


def one_line(error: BaseException, limit: int = 10_000) -> str:
    """The message of an error as one line; the name of its type if the message is empty.

    Args:
      error: The error.
      limit: The largest number of characters to return.

    >>> one_line(ValueError("shape (2, 3)\\n  is not (3, 2)"))
    'shape (2, 3) is not (3, 2)'
    >>> one_line(KeyError())
    'KeyError'
    """
    return " ".join(str(error).split())[:limit] or type(error).__name__


def is_of_storage(error: BaseException) -> bool:
    """Whether an error's type is one of disks, or of clients of storage in the network.

    >>> is_of_storage(PermissionError()), is_of_storage(ValueError())
    (True, False)
    """
    if isinstance(error, OSError):
        return True
    module, name = type(error).__module__, type(error).__name__
    if module.startswith("tensorflow"):
        return name in _OF_TENSORFLOW
    return module.startswith(_CLIENTS)


def as_host_error(error: BaseException) -> BaseException:
    """Translates an error that the host or its storage has caused into a `HostError`.

    The error, its cause and its context are searched for the operating system's error number, and
    for its words: libraries written in C++ only give those, in their message.

    Args:
      error: The error that was caught.

    Returns:
      A `HostError` if the host is the cause, or the same error if it is not.

    >>> print(as_host_error(RuntimeError("write failed: Disk quota exceeded")))
    disk quota exceeded; what was saved before is kept (write failed: Disk quota exceeded)
    >>> as_host_error(ValueError("shapes differ"))
    ValueError('shapes differ')
    """
    cause: BaseException | None = error
    while cause is not None:
        text = one_line(cause)
        number = cause.errno if isinstance(cause, OSError) else None
        named = [words for words in _HOST_FAULTS.values() if words in text.lower()]
        if number in _HOST_FAULTS or named:
            reason = _HOST_FAULTS.get(number or 0) or named[0]
            return HostError(f"{reason}; what was saved before is kept ({text[:300]})")
        if isinstance(cause, MemoryError) or type(cause).__name__ == "ResourceExhaustedError":
            return HostError(
                f"the host's memory is used up ({text[:300]}); use smaller batches or a host with "
                "more memory; what was saved before is kept"
            )
        if "can't start new thread" in text:
            return HostError(f"{text}; raise the limit of processes and threads (ulimit -u)")
        cause = cause.__cause__ or cause.__context__
    of_storage = is_of_storage(error) and not isinstance(error, OSError)
    if of_storage or _OF_A_BUCKET.search(one_line(error)):
        return HostError(
            f"the storage answers with an error ({one_line(error, 300)}); check the path, this "
            "machine's access to it and the network, and run the same command again"
        )
    return error
