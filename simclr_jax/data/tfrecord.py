"""Random access to TFRecord files."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from etils import epy

from simclr_jax.data.source import File, file_at
from simclr_jax.errors import FileError, one_line
from simclr_jax.store import files, outage

with epy.lazy_imports():
    import tensorflow as tf

# The sizes in bytes of what comes before and after the data of a TFRecord. It consists of the
# length (uint64), the CRC of the length (uint32), the data, and the CRC of the data (uint32).
_HEADER, _FOOTER = 12, 4

_log = logging.getLogger(__name__)


class TFRecordReader:
    """Random access to the records of TFRecord files.

    Small files are read into memory. For others the positions of the records are found once and
    stored in the user's cache folder, since the folder of the data may be read-only. A record that
    is read is checked by its checksum.

    Args:
      instructions: The files of a split and the records of each that belong to it, as TFDS gives
        them in `SplitInfo.file_instructions`.
      cache_bytes: The largest total size in bytes of files that are read into memory.

    Raises:
      FileError: A file is missing, its records cannot be told apart, or there are others than the
        description says.
      HostError: The storage is out of reach.
    """

    def __init__(self, instructions: Sequence[Any], *, cache_bytes: int):
        paths = [os.fspath(instruction.filename) for instruction in instructions]
        self._pool = ThreadPoolExecutor(16)
        found = list(self._pool.map(_file, paths))
        self._in_memory = sum(file.size for file in found) <= cache_bytes
        self._unkept: list[str] = []
        read = _read_shard if self._in_memory else self._index_shard
        self._shards = list(self._pool.map(read, found))
        if self._unkept:
            _log.warning(
                "the index of %d TFRecord files cannot be kept for the next time (%s); "
                "XDG_CACHE_HOME can name a folder for it",
                len(self._unkept),
                self._unkept[0],
            )
        self._rows = np.concatenate(
            [
                np.stack([np.full(len(rows), shard), rows], axis=1)
                for shard, (instruction, (_, offsets)) in enumerate(
                    zip(instructions, self._shards, strict=True)
                )
                for rows in [_selected_rows(instruction, len(offsets))]
            ]
        )
        self._paths = paths

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: Sequence[int]) -> list[bytes | str]:
        """The records; the reason for a damaged one.

        Raises:
          HostError: The storage is out of reach.
        """
        each = map if self._in_memory else self._pool.map
        return list(each(self._read, indices))

    def _read(self, index: int) -> bytes | str:
        shard, row = self._rows[index]
        buffer, offsets = self._shards[shard]
        start, length = map(int, offsets[row])
        path = self._paths[shard]
        if buffer is not None:
            data = buffer[start : start + length + _FOOTER]
        else:
            try:
                data = outage.patiently(lambda: _part(path, start, length + _FOOTER), path)
            except Exception as error:
                if outage.is_missing(error):  # The file was deleted since it was indexed.
                    return outage.MISSING
                raise
        if not _matches(data[:length], data[length:]):
            return f"its checksum does not match, at byte {start} of {path}"
        return data[:length]

    def _index_shard(self, file: File) -> tuple[bytes | None, np.ndarray]:
        """The position and length of each record of a file, from the user's cache if possible."""
        path, size, modified = file
        key = f"{os.path.abspath(path)} {size} {modified}"
        try:
            kept = _cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
        except RuntimeError as error:  # There is no home.
            self._unkept.append(one_line(error))
            kept = None
        if kept is not None and (offsets := _kept_spans(kept, size)) is not None:
            return None, offsets
        with _open(path, buffering=0) as opened:
            if not files.is_remote(path) and hasattr(os, "posix_fadvise"):
                # The disk is to read the headers alone, not the records between them.
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            offsets = _spans(path, size, lambda position, n: _at(opened, position, n))
        if kept is not None:
            array = io.BytesIO()
            np.save(array, offsets, allow_pickle=False)
            try:
                kept.parent.mkdir(parents=True, exist_ok=True)
                files.write(kept, array.getvalue())
            except OSError as error:
                self._unkept.append(one_line(error))
        return None, offsets


def _selected_rows(instruction: Any, available: int) -> np.ndarray:
    """The numbers of a file's records that belong to the split."""
    stop = available if instruction.take in (-1, None) else instruction.skip + instruction.take
    if instruction.examples_in_shard != available or stop > available:
        raise FileError(
            f"{instruction.filename}: {available} records, where the dataset's description has "
            f"{instruction.examples_in_shard}; the file is cut short or of another version"
        )
    return np.arange(instruction.skip, stop)


def _read_shard(file: File) -> tuple[bytes | None, np.ndarray]:
    """The content of a file, and the position and length of each record in it."""
    path, size, _ = file
    buffer = outage.patiently(lambda: _part(path, 0, size), path)
    return buffer, _spans(path, size, lambda position, n: buffer[position : position + n])


def _part(path: str, position: int, n: int) -> bytes:
    """At most n bytes of a file, from a position on."""
    with _open(path) as file:
        return _at(file, position, n)


def _open(path: str, buffering: int = -1) -> Any:
    """Opens a file; one on a disk without TensorFlow, which reads 512 kB for every record."""
    return tf.io.gfile.GFile(path, "rb") if files.is_remote(path) else open(path, "rb", buffering)


def _at(file: Any, position: int, n: int) -> bytes:
    file.seek(position)
    return file.read(n)


def _file(path: str) -> File:
    """The state of a file.

    Raises:
      FileError: There is no such file.
    """
    try:
        return file_at(path)
    except tf.errors.NotFoundError as error:
        raise FileError(f"{path}: missing; the dataset's description names it") from error


def _kept_spans(path: Path, size: int) -> np.ndarray | None:
    """The positions and lengths in a file of the user's cache; None if it is missing or damaged."""
    try:
        spans = np.load(path, allow_pickle=False)
        starts, lengths = spans.astype(np.int64).T
    except (OSError, EOFError, ValueError):
        return None
    ends = np.concatenate([[0], starts + lengths + _FOOTER])  # The first record starts at byte 0.
    whole = ends[-1] == size and np.array_equal(ends[:-1] + _HEADER, starts)
    return spans if whole and (lengths >= 0).all() else None


def _spans(path: str, size: int, read: Callable[[int, int], bytes]) -> np.ndarray:
    """The positions and lengths of the records of a file, (n, 2) int64.

    Args:
      path: The path of the file, for messages.
      size: The number of its bytes.
      read: The function from a position and a number of bytes to the bytes there.

    Raises:
      FileError: The length of a record is damaged, so that those after it cannot be found.
    """
    spans = []
    position = 0
    while position + _HEADER <= size:
        header = read(position, _HEADER)
        (length,) = struct.unpack_from("<Q", header)
        start, end = position + _HEADER, position + _HEADER + length + _FOOTER
        # Where only the checksum of the length is damaged, that of the data still matches.
        if not _matches(header[:8], header[8:]) and not (
            end <= size and _matches(read(start, length), read(start + length, _FOOTER))
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


def _matches(data: bytes, checksum: bytes) -> bool:
    """Whether bytes have the checksum that is stored with them: a CRC-32C, rotated and shifted.

    >>> _matches(bytes(8), bytes.fromhex("29039807"))
    True
    """
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return checksum == masked.to_bytes(4, "little")


def _cache_folder() -> Path:
    """The folder of the positions in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "simclr_jax" / "tfrecord_index"
