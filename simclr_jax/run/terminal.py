"""What a person at a terminal sees of a run: a bar, lines that fit, or nothing."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextvars import ContextVar

BAR = 12  # The number of characters of a bar.
_BLOCKS = " ▏▎▍▌▋▊▉█"  # A character filled from the left by 0 to 8 eighths.
_CYAN, _PLAIN = "\x1b[36m", "\x1b[0m"

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """A context in which, if it is on, only warnings and errors are printed."""
    token = _quiet.set(on)
    try:
        if not on:
            yield
            return
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether only warnings and errors are to be printed."""
    return _quiet.get()


def bar(share: float, *, encoding: str | None = "utf-8") -> str:
    """A bar for a share of the work, with its percentage.

    >>> bar(0.525), bar(1), bar(0.525, encoding="ascii")
    (' 52%|██████▎     |', '100%|████████████|', ' 52%|######      |')

    Args:
      share: The share that is done, 0 to 1.
      encoding: The encoding of the terminal; where it lacks the blocks, the bar is of '#'.
    """
    share = min(1.0, max(0.0, share))
    eighths = int(share * BAR * 8)
    full, part = divmod(eighths, 8)
    try:
        _BLOCKS.encode(encoding or "ascii")
    except (UnicodeError, LookupError):
        drawn = "#" * full
    else:
        drawn = "█" * full + (_BLOCKS[part] if part else "")
    return f"{int(share * 100):3d}%|{drawn:<{BAR}}|"


def drawn(share: float, line: str) -> str:
    """A bar, then as many parts of a line as fit in the terminal, so that it can be drawn over.

    The bar is coloured unless the variable NO_COLOR is set, or the terminal is a dumb one.

    Args:
      share: The share of the work that is done, 0 to 1.
      line: The line, whose parts are two spaces apart. The time that is left comes first.
    """
    columns = shutil.get_terminal_size().columns
    begin = bar(share, encoding=getattr(sys.stdout, "encoding", None))
    text = ""
    for part in sorted(line.split("  "), key=lambda part: not part.endswith(" left")):
        if len(begin) + len(text) + len(part) + 2 >= columns:
            break
        text += f"  {part}"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return begin + text
    return f"{_CYAN}{begin}{_PLAIN}{text}"
