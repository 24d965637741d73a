"""TensorBoard's event files."""

import time
from collections.abc import Mapping, Set
from typing import Any

from etils import epath
from tensorboardX import record_writer
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from simclr_jax.store import files

FLUSH_SECONDS = 10.0  # between two writes to disk


class Board:
    """TensorBoard's event file, written by the thread that calls: its errors are heard.

    (tensorboardX's SummaryWriter has a thread of its own for that; once a full disk has ended it,
    the caller waits for it for ever.)

    Args:
      folder: where the file is made.
      last_step: what earlier files hold of later steps is void.
    """

    def __init__(self, folder: epath.Path, *, last_step: int):
        if files.is_remote(folder):
            scheme = str(folder).partition("://")[0]
            record_writer.register_writer_factory(scheme, _Factory())
        record_writer.directory_check(str(folder))
        self._events = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(step=last_step + 1, session_log=start))
        self._events.flush()

    def write(self, row: Mapping[str, Any], keys: Set[str]) -> None:
        """Writes those of the keys that the row has a number for."""
        for key in keys:
            if row.get(key) is not None:
                event = Event(wall_time=time.time(), step=row["step"])
                event.summary.CopyFrom(scalar(key, row[key]))
                self._events.write_event(event)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._events.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._events.close()


class _Factory:
    """How tensorboardX opens its event files in a bucket; its own way needs Google's client."""

    def open(self, path: str) -> files.GrowingObject:
        return _Events(path)

    def directory_check(self, path: str) -> None:
        epath.Path(path).mkdir(parents=True, exist_ok=True)


class _Events(files.GrowingObject):
    """An event file in a bucket."""

    def flush(self) -> None:
        """As tensorboardX asks after each event: not oftener than a bucket allows."""
        if time.monotonic() - self._uploaded_at > files.UPLOAD_SECONDS:
            super().flush()

    def close(self) -> None:
        super().flush()
