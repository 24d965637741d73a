"""What can go wrong outside our code, and the exit status each kind ends a binary with."""

import errno
from typing import Any

PREEMPTED = 75  # exit status: saved, run the same command again

_OF_THE_HOST = {
    errno.ENOSPC: "no space left on device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "file too large",
    errno.EROFS: "read-only file system",
    errno.EIO: "input/output error",
    errno.EACCES: "permission denied",
    errno.EMFILE: "too many open files",
    errno.ESTALE: "stale file handle",
    errno.ENOTCONN: "transport endpoint is not connected",  # a mounted bucket that is gone
    errno.ETIMEDOUT: "connection timed out",
}
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
# Those that say nothing of a file that could not be read.
LOST_DISK = {errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}


class UserError(Exception):
    """The user's input is at fault (exit status 2).

    The message is one line that names the key or the file, the value, and what is allowed.
    """


class FileError(ValueError):
    """A file or a folder is not what it has to be (exit status 2); the message names it."""


class ArgumentError(ValueError):
    """An argument of a function cannot be used; what is called says why, and knows no keys.

    The command line has a name for most arguments: `cli` makes the line that the user reads.

    Attributes:
      argument: The name of the argument.
      value: Its value.
      reason: Why it cannot be used, and what is allowed.
    """

    def __init__(self, argument: str, value: Any, reason: str):
        super().__init__(f"{argument}={value!r}: {reason}")
        self.argument, self.value, self.reason = argument, value, reason


class HostError(Exception):
    """The environment is at fault: a lost process, a full disk (exit status 3)."""


class DifferenceError(Exception):
    """What should be equal is not (exit status 1)."""


class DivergedError(Exception):
    """The loss or a gradient is not finite: the run cannot go on (exit status 1)."""


class PreemptedError(Exception):
    """The process was told to stop, and saved (exit status 75)."""


def one_line(error: BaseException, limit: int = 10_000) -> str:
    """The message of an error in one line of at most `limit` characters, or else its type."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def as_host_error(error: BaseException) -> BaseException:
    """A HostError, where the error or what caused it is a full, failing or lost disk; else it.

    Libraries written in C++ leave only the operating system's words in their message.
    """
    cause: BaseException | None = error
    while cause is not None:
        text = one_line(cause)
        number = cause.errno if isinstance(cause, OSError) else None
        named = [words for words in _OF_THE_HOST.values() if words in text.lower()]
        if number in _OF_THE_HOST or named:
            reason = _OF_THE_HOST.get(number or 0) or named[0]
            return HostError(f"{reason}; what was saved before is kept ({text[:300]})")
        cause = cause.__cause__ or cause.__context__
    return error
