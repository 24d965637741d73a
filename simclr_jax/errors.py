"""What can go wrong outside our code, and the exit status each kind ends a binary with."""


class UserError(Exception):
    """The user's input is at fault (exit status 2).

    The message is one line that names the key or the file, the value, and what is allowed.
    """


class HostError(Exception):
    """The environment is at fault: a lost process, a full disk (exit status 3)."""


class DifferenceError(Exception):
    """What should be equal is not (exit status 1)."""


class DivergedError(Exception):
    """The loss or a gradient is not finite: the run cannot go on (exit status 1)."""
