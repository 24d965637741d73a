"""Where the records of TFRecord files begin, which their headers alone tell, and where it is kept.

Record files have no table of contents: the length of each record leads to the next one. What is
found is kept in a folder of the user, or in one that the machines of a run share.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import google_crc32c
import jax
import numpy as np
from etils import epath

from simclr_jax import processes
from simclr_jax.data.source import File
from simclr_jax.errors import FileError, is_of_storage, one_line
from simclr_jax.store import files, outage, ranges, user_cache

# The sizes in bytes of what comes before and after the data of a TFRecord. It consists of the
# length (uint64), the CRC of the length (uint32), the data, and the CRC of the data (uint32).
HEADER, FOOTER = 12, 4
# The number of bytes that are read with a header while records are so short that several of their
# headers are among them.
_WINDOW, _SHORT = 2**18, 2**15
_SAID_SECONDS = 5.0  # The time after which indexing is said, and between two lines of it.

Read = Callable[[int, int], bytes]  # From a position and a number of bytes to the bytes there.


class Index:
    """The positions and lengths of the records of files, found once and kept.

    Args:
      folder: The folder where they are kept, on a disk or in a bucket; None: the user's cache. In a
        bucket the processes of a run share it, and each begins with other files.

    Attributes:
      unkept: The reasons why positions could not be kept, one a file.
    """

    def __init__(self, folder: str | None):
        self._shared = folder is not None and files.is_remote(folder)
        self._folder: epath.Path | None = None
        self._homeless = ""  # The reason why there is no folder.
        try:
            place = user_cache.path("tfrecord_index") if folder is None else folder
            self._folder = epath.Path(place).expanduser()
        except RuntimeError as error:
            self._homeless = one_line(error)
        self.unkept: list[str] = []

    def spans(self, found: Sequence[File], pool: Executor) -> list[np.ndarray]:
        """The positions and lengths of the records of each file, (n, 2) int64 each.

        Args:
          found: The files.
          pool: The threads that read them.

        Raises:
          FileError: The records of a file cannot be told apart.
          HostError: The storage is out of reach.
        """
        several = self._shared and processes.several()
        own, count = (jax.process_index(), jax.process_count()) if several else (0, 1)
        order = sorted(range(len(found)), key=lambda number: (number - own) % count)
        progress = _Progress(len(found))

        def indexed(number: int) -> tuple[int, np.ndarray]:
            made = self._indexed(found[number])
            progress.file_done()
            return number, made

        by_number = dict(pool.map(indexed, order))
        return [by_number[number] for number in range(len(found))]

    def _indexed(self, file: File) -> np.ndarray:
        path, size, modified = file
        place = path if files.is_remote(path) else os.path.abspath(path)
        name = hashlib.sha256(f"{place} {size} {modified}".encode()).hexdigest()
        kept = None if self._folder is None else self._folder / f"{name}.npy"
        if kept is not None and (spans := _kept_spans(kept, size)) is not None:
            return spans
        spans = spans_of(path, size, Ahead(path, size))
        if kept is None:
            self.unkept.append(self._homeless)
            return spans
        try:
            _keep(kept, spans)
        except Exception as error:
            if not is_of_storage(error):
                raise
            self.unkept.append(one_line(error))
        return spans


class _Progress:
    """Says how many files are indexed, where it takes more than seconds."""

    def __init__(self, total: int):
        self._total, self._done = total, 0
        self._said_at = time.monotonic()
        self._lock = threading.Lock()

    def file_done(self) -> None:
        """Counts a file."""
        with self._lock:
            self._done += 1
            if time.monotonic() - self._said_at < _SAID_SECONDS:
                return
            self._said_at = time.monotonic()
        processes.say(f"indexing TFRecord files: {self._done:,} of {self._total:,}")


class Ahead:
    """Reads of a file from its beginning on, each for a header; several at once of short records.

    Args:
      path: The path of the file.
      size: The number of its bytes.
    """

    def __init__(self, path: str, size: int):
        self._path, self._size = path, size
        self._least = ranges.storage_of(path).least
        self._start, self._data = 0, b""
        self._headers = 0

    def __call__(self, position: int, n: int) -> bytes:
        """At most n bytes, from a position on.

        Raises:
          HostError: The storage is out of reach.
        """
        self._headers += n == HEADER
        begin = position - self._start
        if not 0 <= begin <= begin + n <= len(self._data):
            short = position <= _SHORT * (self._headers - 1)
            wanted = max(n, self._least, _WINDOW if short and self._headers > 1 else n)
            wanted = min(wanted, self._size - position)
            self._data = outage.patiently(
                lambda: ranges.read(self._path, position, wanted), self._path
            )
            self._start, begin = position, 0
        return self._data[begin : begin + n]


def spans_of(path: str, size: int, read: Read) -> np.ndarray:
    """The positions and lengths of the records of a file, (n, 2) int64.

    Args:
      path: The path of the file, for messages.
      size: The number of its bytes.
      read: The function that reads the file.

    Raises:
      FileError: The length of a record is damaged, so that those after it cannot be found.
    """
    spans = []
    position = 0
    while position + HEADER <= size:
        header = read(position, HEADER)
        if len(header) < HEADER:
            break
        (length,) = struct.unpack_from("<Q", header)
        start, end = position + HEADER, position + HEADER + length + FOOTER
        # Where only the checksum of the length is damaged, that of the data still matches.
        if not matches(header[:8], header[8:]) and not (
            end <= size and matches(read(start, length), read(start + length, FOOTER))
        ):
            raise FileError(
                f"{path}: the record at byte {position} is damaged, and those after it cannot be "
                "found (the checksum of its length does not match); copy or prepare the file again"
            )
        spans.append((start, length))
        position = end
    if position != size:
        raise FileError(
            f"{path}: its last record ends at byte {position} of {size}; the file is damaged"
        )
    return np.array(spans, np.int64).reshape(-1, 2)


def matches(data: bytes, checksum: bytes) -> bool:
    """Whether bytes have the checksum that is stored with them: a CRC-32C, rotated and shifted.

    >>> matches(bytes(8), bytes.fromhex("29039807"))
    True
    """
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return checksum == masked.to_bytes(4, "little")


def _keep(path: epath.Path, spans: np.ndarray) -> None:
    """Writes positions and lengths to a file, whose folder need not exist."""
    array = io.BytesIO()
    np.save(array, spans, allow_pickle=False)
    if not files.is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, array.getvalue())


def _kept_spans(path: epath.Path, size: int) -> np.ndarray | None:
    """The positions and lengths that are kept in a file; None if it is missing or damaged."""
    try:
        spans = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        starts, lengths = spans.astype(np.int64).T
    except (EOFError, ValueError):
        return None
    except Exception as error:
        if is_of_storage(error):
            return None
        raise
    ends = np.concatenate([[0], starts + lengths + FOOTER])  # The first record starts at byte 0.
    whole = ends[-1] == size and np.array_equal(ends[:-1] + HEADER, starts)
    return spans if whole and (lengths >= 0).all() else None
