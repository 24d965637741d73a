"""The user's cache: folders of what is quicker to keep between commands, and may be deleted.

It is ~/.cache/simclr_jax, or XDG_CACHE_HOME/simclr_jax where that variable is set.
"""

import os
import sys
from pathlib import Path

_said: list[str] = []  # The reasons that were told why there is no cache.


def folder(name: str) -> Path | None:
    """A folder in the user's cache, which is made where it is missing.

    Args:
      name: The name of the folder, which says what is kept there.

    Returns:
      The path; None where there is no home, or the folder cannot be written. This is said once.
    """
    try:
        place = path(name)
    except RuntimeError:
        return _without("there is no home")
    try:
        # A program that is kept runs later: nobody else may write there.
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return _without(f"{place} cannot be made ({error.strerror})")
    if not os.access(place, os.W_OK | os.X_OK):
        return _without(f"{place} cannot be written")
    return place


def path(name: str) -> Path:
    """The path of a folder in the user's cache, which need not exist.

    Raises:
      RuntimeError: There is no home.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = given if given.is_absolute() else Path.home() / ".cache"
    if not root.is_absolute():
        raise RuntimeError("Could not determine home directory.")
    return root / "simclr_jax" / name


def _without(reason: str) -> Path | None:
    """No folder; says at the first reason that nothing is kept."""
    if not _said and sys.stderr is not None:
        print(f"nothing is kept in a cache between commands: {reason}", file=sys.stderr, flush=True)
    _said.append(reason)
    return None
