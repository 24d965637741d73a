"""Random access to TFRecord files."""

import hashlib
import io
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_jax.errors import FileError
from simclr_jax.store import files

# The sizes in bytes of what comes before and after the data of a TFRecord. It consists of the
# length (uint64), the CRC of the length (uint32), the data, and the CRC of the data (uint32).
_HEADER, _FOOTER = 12, 4


class TFRecordReader:
    """Random access to the records of TFRecord files.

    Small files are read into memory. For others the positions of the records are found once and
    stored in the user's cache folder, since the folder of the data may be read-only.

    Args:
      instructions: The files of a split and the records of each that belong to it, as TFDS gives
        them in `SplitInfo.file_instructions`.
      cache_bytes: The largest total size in bytes of files that are read into memory.

    Raises:
      FileError: A file is damaged, or has another number of records than its description.
    """

    def __init__(self, instructions: Sequence[Any], *, cache_bytes: int):
        paths = [os.fspath(instruction.filename) for instruction in instructions]
        sizes = [tf.io.gfile.stat(path).length for path in paths]
        in_memory = sum(sizes) <= cache_bytes
        with ThreadPoolExecutor(16) as pool:
            self._shards = list(pool.map(_read_shard if in_memory else _index_shard, paths, sizes))
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
        self._pool = ThreadPoolExecutor(16)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: Sequence[int]) -> list[bytes]:
        return list(self._pool.map(self._read, indices))

    def _read(self, index: int) -> bytes:
        shard, row = self._rows[index]
        buffer, offsets = self._shards[shard]
        start, length = offsets[row]
        if buffer is not None:
            return buffer[start : start + length]
        with tf.io.gfile.GFile(self._paths[shard], "rb") as file:
            file.seek(int(start))
            return file.read(int(length))


def _selected_rows(instruction: Any, available: int) -> np.ndarray:
    """The numbers of a file's records that belong to the split."""
    stop = available if instruction.take in (-1, None) else instruction.skip + instruction.take
    if instruction.examples_in_shard != available or stop > available:
        raise FileError(
            f"{instruction.filename}: {available} records, where the dataset's description has "
            f"{instruction.examples_in_shard}; the file is cut short or of another version"
        )
    return np.arange(instruction.skip, stop)


def _read_shard(path: str, size: int) -> tuple[bytes | None, np.ndarray]:
    """The content of a file, and the position and length of each record in it."""
    with tf.io.gfile.GFile(path, "rb") as file:
        buffer = file.read()
    spans = []
    position = 0
    while position + _HEADER <= size:
        (length,) = struct.unpack_from("<Q", buffer, position)
        spans.append((position + _HEADER, length))
        position += _HEADER + length + _FOOTER
    return buffer, _spans(path, spans, position, size)


def _index_shard(path: str, size: int) -> tuple[bytes | None, np.ndarray]:
    """The position and length of each record in a file, from the user's cache if it has them."""
    modified = tf.io.gfile.stat(path).mtime_nsec
    key = hashlib.sha256(f"{os.path.abspath(path)} {size} {modified}".encode()).hexdigest()
    cached = _cache_folder() / f"{key}.npy"
    if (offsets := _cached_spans(cached, size)) is not None:
        return None, offsets
    spans = []
    position = 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while position + _HEADER <= size:
            file.seek(position)
            (length,) = struct.unpack("<Q", file.read(8))
            spans.append((position + _HEADER, length))
            position += _HEADER + length + _FOOTER
    offsets = _spans(path, spans, position, size)
    cached.parent.mkdir(parents=True, exist_ok=True)
    array = io.BytesIO()
    np.save(array, offsets, allow_pickle=False)
    files.write(cached, array.getvalue())
    return None, offsets


def _cached_spans(path: Path, size: int) -> np.ndarray | None:
    """The positions and lengths in a file of the user's cache; None if it is missing or damaged."""
    try:
        spans = np.load(path, allow_pickle=False)
        starts, lengths = spans.astype(np.int64).T
    except (OSError, EOFError, ValueError):
        return None
    ends = np.concatenate([[0], starts + lengths + _FOOTER])  # The first record starts at byte 0.
    whole = ends[-1] == size and np.array_equal(ends[:-1] + _HEADER, starts)
    return spans if whole and (lengths >= 0).all() else None


def _spans(path: str, spans: list[tuple[int, int]], end: int, size: int) -> np.ndarray:
    """The positions and lengths as an array (n, 2) int64, after a check of the last one's end."""
    if end != size:
        raise FileError(
            f"{path}: its last record ends at byte {end} of {size}; the file is damaged"
        )
    return np.array(spans, np.int64).reshape(-1, 2)


def _cache_folder() -> Path:
    """The folder of the positions in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "simclr_jax" / "tfrecord_index"
