"""What can go wrong outside our code, and the exit status each kind ends a binary with."""


class UserError(Exception):
    """The user's input is at fault (exit status 2).

    The message is one line that names the key or the file, the value, and what is allowed.
    """


class HostError(Exception):
    """The environment is at fault, such as a full disk or a lost peer (exit status 3)."""
