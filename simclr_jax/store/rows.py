"""The file metrics.jsonl, with one row per logged step."""

import json
import logging
import math
import os
from typing import IO, Any

from etils import epath

from simclr_jax.errors import HostError
from simclr_jax.store import files, outage
from simclr_jax.store.files import GrowingObject, is_remote

Row = dict[str, Any]  # The numbers of a step by name, "step" among them.
UNTIMED = ("images_per_second", "input_wait")  # Those that a row may lack without harm.

_log = logging.getLogger(__name__)


def as_json(row: Row) -> Row:
    """A row with None for NaN and infinity, which JSON does not have.

    >>> as_json({"step": 3, "loss": math.inf})
    {'step': 3, 'loss': None}
    """
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


class MetricsFile:
    """The file WORKDIR/metrics.jsonl: one JSON object per logged step, flushed at each row.

    Opening it drops the rows after `last_step` (a run that was killed after its last checkpoint
    writes them again) and a last line that is incomplete.

    Args:
      path: The path, on a disk or in a bucket.
      last_step: The last step whose row is kept.
    """

    def __init__(self, path: epath.PathLike, *, last_step: int):
        self._path = epath.Path(path)
        self._open([row for row in read_rows(self._path) if row["step"] <= last_step])

    def _open(self, rows: list[Row]) -> None:
        """Replaces the file by one with these rows, and opens it to append more."""
        kept = "".join(json.dumps(as_json(row)) + "\n" for row in rows).encode()
        self._file: IO[bytes] | GrowingObject
        if is_remote(self._path):
            self._file = GrowingObject(self._path, kept)
        else:
            files.write(self._path, kept)
            self._file = self._path.open("ab")

    def write(self, row: Row) -> None:
        """Appends a row."""
        self._file.write((json.dumps(as_json(row)) + "\n").encode())
        if not isinstance(self._file, GrowingObject):
            self._file.flush()

    def replace_last(self, row: Row) -> None:
        """Replaces the last row by another one of the same step."""
        self.close()
        self._open([*read_rows(self._path)[:-1], row])

    def flush(self) -> None:
        """Returns when all rows are on disk, or in the bucket.

        Raises:
          HostError: The file was removed or replaced meanwhile.
        """
        if isinstance(self._file, GrowingObject):
            self._file.flush()
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        if not files.is_at(self._file.fileno(), self._path):
            raise HostError(f"{self._path}: was removed or replaced while the run wrote it")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_rows(path: epath.PathLike) -> list[Row]:
    """The rows of a metrics.jsonl; none where there is no file.

    A line that is not a row is left out, with a warning unless it is an incomplete last line.
    """
    path = epath.Path(path)
    rows: list[Row] = []
    try:
        content = outage.patiently(path.read_bytes, path)
    except FileNotFoundError:
        content = b""
    lines = content.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if _is_row(row):
            rows.append(row)
        elif number < len(lines) or content.endswith(b"\n"):
            _log.warning("%s: line %d is no row of metrics; left out", path, number)
    return rows


def _is_row(value: Any) -> bool:
    """Whether a value of JSON has a step, and nothing but numbers and nulls."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    return all(number is None or isinstance(number, int | float) for number in value.values())
