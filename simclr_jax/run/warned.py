"""The warnings that a run gives of its health: logged, and kept in its folder for its report."""

import json
import logging
from typing import Any

from etils import epath

from simclr_jax import processes
from simclr_jax.errors import one_line
from simclr_jax.run.health import Warned
from simclr_jax.store import files

FILE = "warnings.json"

_log = logging.getLogger(__name__)


def read(root: epath.Path) -> dict[str, Warned] | None:
    """The warnings of a run by kind; None where it has no such file, or one that cannot be read.

    Args:
      root: The folder of the run.
    """
    try:
        found = json.loads((root / FILE).read_text())
        return {kind: Warned(kind, int(of["step"]), str(of["line"])) for kind, of in found.items()}
    except Exception:  # Buckets raise many kinds, and a warning is no result of the run.
        return None


class Kept:
    """Logs the warnings of a run, and keeps the last one of each kind in its folder.

    A run that begins has an empty file, which says that there was nothing to warn of. One that goes
    on forgets what came after the step that it goes on from.

    Args:
      root: The folder of the run.
      start: The number of updates that the run has made.
    """

    def __init__(self, root: epath.Path, start: int):
        self._path = root / FILE
        before = read(root)
        self._kept = {k: each for k, each in (before or {}).items() if each.step <= start}
        if before is not None or not start:
            self._write()

    def __call__(self, warned: Warned) -> None:
        """Logs a warning and writes it down."""
        _log.warning("%s", warned.line)
        self._kept[warned.kind] = warned
        self._write()

    def _write(self) -> None:
        if not processes.is_primary():
            return
        content: dict[str, Any] = {
            kind: {"step": each.step, "line": each.line} for kind, each in self._kept.items()
        }
        try:
            files.write_json(self._path, content)
        except Exception as error:  # The log has the warning; the training goes on.
            _log.warning("%s: not written (%s)", self._path, one_line(error, 200))
