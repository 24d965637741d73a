"""The rows of a run for a tracker: wandb, or a library of the same form.

Nothing leaves the machine unless the variable of the library asks for it: `WANDB_MODE`,
`SWANLAB_MODE`, `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL`.
"""

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from simclr_jax.errors import ArgumentError, PreemptedError, one_line
from simclr_jax.store import files

TRACKERS = ("wandb", "trackio", "swanlab")
FILE = "tracker.json"  # The file of a run that keeps the identifier of its tracked run.
_ID_LENGTH = 21  # SwanLab takes identifiers of this length only.

_log = logging.getLogger(__name__)


def check(name: str) -> None:
    """Checks that a tracker is installed, without importing it; one that is none passes.

    Raises:
      ArgumentError: It is not.
    """
    if name not in TRACKERS or name in sys.modules:
        return
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # A folder of that name has no origin.
        raise ArgumentError("tracker", name, f"is not installed (pip install {name})")


class Tracker:
    """A run in a tracker. Where the tracker fails, that is said once, and the run goes on without.

    Args:
      name: The name of the library, one of `TRACKERS`.
      root: The folder of the run, which keeps the identifier by which a resumed run is continued.
      project: The name of the project.
      config: The values of the run by their keys.
      quiet: Whether the library is to print warnings and errors only.
    """

    def __init__(
        self,
        name: str,
        root: epath.Path,
        *,
        project: str,
        config: Mapping[str, Any],
        quiet: bool = False,
    ):
        self._name = name
        self._library: Any = None
        if name == "wandb":
            # Its telemetry does not see the mode that `init` is given, and would ask a server.
            os.environ.setdefault("WANDB_MODE", "offline")
        try:
            library: Any = importlib.import_module(name)
            options = _options(name, root)
            if name == "wandb" and quiet:  # It writes to stderr.
                options["settings"] = {"silent": True}
            with _own_interruption():
                library.init(project=project, config=dict(config), **options)
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
        """Ends the tracked run, once the tracker has all rows.

        While an error is handled that ends the run, the tracker is told that the run failed.
        """
        if self._library is None:
            return
        try:
            self._library.finish(**_as_failed(self._name, sys.exc_info()[1]))
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._library = None
        _log.warning(
            "%s fails (%s); the run goes on without it, and metrics.jsonl has all rows",
            self._name,
            one_line(error, 300),
        )


@contextlib.contextmanager
def _own_interruption() -> Iterator[None]:
    """A context after which Ctrl-C has the handler that it had before.

    SwanLab puts its own in its place, which ends the tracked run at the first Ctrl-C: the rows up
    to the checkpoint that is saved then would be lost.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


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


def _as_failed(name: str, error: BaseException | None) -> dict[str, Any]:
    """The arguments by which a library counts a run as failed; none where no error has ended it."""
    if error is None or isinstance(error, PreemptedError):
        return {}
    if name == "wandb":
        return {"exit_code": 1}
    if name == "swanlab":
        return {"state": "crashed", "error": f"{type(error).__name__}: {one_line(error)}"}
    return {}  # Trackio does not tell them apart.


def _identifier(name: str, root: epath.Path) -> str:
    """The identifier of the run in a tracker, which is drawn and kept where there is none."""
    path = root / FILE
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = uuid.uuid4().hex[:_ID_LENGTH]
        files.write_json(path, known)
    return known[name]
