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
    given, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    if not os.path.isabs(given) and not os.path.isabs(home):
        return _without("there is no home")
    root = Path(given) if os.path.isabs(given) else Path(home) / ".cache"
    place = root / "simclr_jax" / name
    try:
        # A program that is kept runs later: nobody else may write there.
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return _without(f"{place} cannot be made ({error.strerror})")
    if not os.access(place, os.W_OK | os.X_OK):
        return _without(f"{place} cannot be written")
    return place


def _without(reason: str) -> Path | None:
    """No folder; says at the first reason that nothing is kept."""
    if not _said and sys.stderr is not None:
        print(f"nothing is kept in a cache between commands: {reason}", file=sys.stderr, flush=True)
    _said.append(reason)
    return None
