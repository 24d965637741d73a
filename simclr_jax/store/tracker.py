"""The rows of a run for a tracker: wandb, or a library of the same form.

Nothing leaves the machine unless the variable of the library asks for it: `WANDB_MODE`,
`SWANLAB_MODE` or `TRACKIO_SPACE_ID`.
"""

import importlib
import importlib.util
import json
import logging
import os
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from etils import epath

from simclr_jax.errors import ArgumentError, one_line
from simclr_jax.store import files

TRACKERS = ("wandb", "trackio", "swanlab")
FILE = "tracker.json"  # The file of a run that keeps the identifier of its tracked run.
_ID_LENGTH = 21  # SwanLab takes identifiers of this length only.

_log = logging.getLogger(__name__)


def check(name: str) -> None:
    """Checks that a tracker is installed, without importing it.

    Raises:
      ArgumentError: It is not.
    """
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        raise ArgumentError("tracker", name, f"is not installed (pip install {name})")


class Tracker:
    """A run in a tracker. Where the tracker fails, that is said once, and the run goes on without.

    Args:
      name: The name of the library, one of `TRACKERS`.
      root: The folder of the run, which keeps the identifier by which a resumed run is continued.
      project: The name of the project.
      config: The values of the run by their keys.
    """

    def __init__(self, name: str, root: epath.Path, *, project: str, config: Mapping[str, Any]):
        self._name = name
        self._library: Any = None
        try:
            library: Any = importlib.import_module(name)
            library.init(project=project, config=dict(config), **_options(name, root))
            self._library = library
        except Exception as error:
            self._give_up(error)

    def log(self, row: Mapping[str, Any]) -> None:
        """Logs the numbers of a row at its "step"; those that are None are left out."""
        if self._library is None:
            return
        numbers = {key: value for key, value in row.items() if key != "step" and value is not None}
        try:
            self._library.log(numbers, step=row["step"])
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Ends the tracked run, once the tracker has all rows."""
        if self._library is None:
            return
        try:
            self._library.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._library = None
        _log.warning(
            "%s fails (%s); the run goes on without it, and metrics.jsonl has all rows",
            self._name,
            one_line(error, 300),
        )


def _options(name: str, root: epath.Path) -> dict[str, Any]:
    """The arguments by which a library keeps a run on this machine, and continues it."""
    called, known = root.name or str(root), _identifier(name, root)
    folder = None if files.is_remote(root) else str(root / "tracker")
    if folder is not None and name != "trackio":
        os.makedirs(folder, exist_ok=True)
    if name == "trackio":  # It finds a run by its name, and has a folder of its own.
        return {"name": f"{called}-{known[:6]}", "resume": "allow"}
    if name == "swanlab":
        kept = {"logdir": folder, "mode": os.environ.get("SWANLAB_MODE", "offline")}
        return {"experiment_name": called, "id": known, "resume": "allow", **kept}
    kept = {"dir": folder, "mode": os.environ.get("WANDB_MODE", "offline")}
    return {"name": called, "id": known, "resume": "allow", **kept}


def _identifier(name: str, root: epath.Path) -> str:
    """The identifier of the run in a tracker, which is drawn and kept where there is none."""
    path = root / FILE
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = uuid.uuid4().hex[:_ID_LENGTH]
        files.write_json(path, known)
    return known[name]
