"""Event files for TensorBoard."""

import sys
import time
from collections.abc import Collection, Mapping, Set
from typing import Any

import numpy as np
from etils import epath

from simclr_jax.store import files

# tensorboardX imports PyTorch where that is installed, which takes seconds and is of no use here.
_HIDDEN: dict[str, Any] = {name: None for name in ("torch",) if name not in sys.modules}
sys.modules.update(_HIDDEN)
try:
    from tensorboardX import record_writer
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams, image, scalar, text
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

FLUSH_SECONDS = 10.0  # The seconds between two writes to the disk.


class Board:
    """An event file, written in the thread that calls, which so gets its errors.

    (The SummaryWriter of tensorboardX writes in another thread. Once a full disk has ended that
    thread, the caller waits for it without end.)

    Args:
      folder: The folder in which the file is made.
      last_step: The last step whose values in earlier files of the folder remain valid; None: all
        of them do.
      suffix: The end of the file's name, for files that are made in the same second.
    """

    def __init__(self, folder: epath.Path, *, last_step: int | None, suffix: str = ""):
        if files.is_remote(folder):
            scheme = str(folder).partition("://")[0]
            record_writer.register_writer_factory(scheme, _Factory())
        record_writer.directory_check(str(folder))
        self._events = EventsWriter(str(folder / "events"), suffix)
        self._flushed = time.monotonic()
        self._first = 0 if last_step is None else last_step + 1
        if last_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=self._first, session_log=start))
        self._events.flush()

    def describe(
        self, values: Mapping[str, Any], hyperparameters: Collection[str], scores: Collection[str]
    ) -> None:
        """Writes what a run is of: a table of its values, and those to compare runs by.

        Args:
          values: The values by name.
          hyperparameters: The names of the values that runs are compared by; None is left out.
          scores: The names of the values of rows that runs are compared by.
        """
        self.write_table("config", values, step=self._first)
        compared = {
            name: value if isinstance(value, bool | int | float) else files.as_text(str(value))
            for name, value in values.items()
            if name in hyperparameters and value is not None
        }
        for summary in hparams(compared, dict.fromkeys(scores))[:2]:
            self._write(summary, self._first)
        self._events.flush()

    def write_table(self, tag: str, values: Mapping[str, Any], *, step: int) -> None:
        """Writes values as a text, a table with a row a value."""
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in values.items())
        self._write(text(tag, files.as_text(f"| | |\n|---|---|\n{rows}")), step)

    def write_picture(self, tag: str, pixels: np.ndarray, *, step: int) -> None:
        """Writes a picture (H, W, 3) uint8."""
        self._write(image(tag, pixels, dataformats="HWC"), step)
        self._events.flush()

    def write(self, row: Mapping[str, Any], keys: Set[str]) -> None:
        """Writes some values of a row.

        Args:
          row: The row, with its "step".
          keys: The names of the values; those that the row lacks or has as None are left out.
        """
        for key in keys:
            if row.get(key) is not None:
                self._write(scalar(key, row[key]), row["step"])
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._events.flush()
            self._flushed = time.monotonic()

    def _write(self, summary: Summary, step: int) -> None:
        event = Event(wall_time=time.time(), step=step)
        event.summary.CopyFrom(summary)
        self._events.write_event(event)

    def close(self) -> None:
        """Writes the last events, and closes the file."""
        self._events.close()


class _Factory:
    """Opens event files in a bucket for tensorboardX, without the client that it would need."""

    def open(self, path: str) -> files.GrowingObject:
        """Opens a new event file."""
        return _Events(path)

    def directory_check(self, path: str) -> None:
        """Makes the folder of the event files unless it exists."""
        epath.Path(path).mkdir(parents=True, exist_ok=True)


class _Events(files.GrowingObject):
    """An event file in a bucket."""

    def flush(self) -> None:
        """Uploads not more often than a bucket allows; tensorboardX asks after each event."""
        if time.monotonic() - self._uploaded_at > files.UPLOAD_SECONDS:
            super().flush()

    def close(self) -> None:
        """Uploads the last events."""
        super().flush()
