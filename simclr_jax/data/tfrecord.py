"""Random access to TFRecord files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from simclr_jax.data.reads import Reads
from simclr_jax.data.source import File, file_at
from simclr_jax.data.tfrecord_index import FOOTER, Index, matches, spans_of
from simclr_jax.errors import FileError
from simclr_jax.store import outage, ranges
from simclr_jax.store.files import is_remote

with epy.lazy_imports():
    import tensorflow as tf

_APART = 2**44  # More bytes than a file has; files so far apart are not read at once.

_log = logging.getLogger(__name__)


class _Run(NamedTuple):
    """Records that are read at once, for they lie beside each other, or nearly so.

    Attributes:
      path: The path of their file.
      start: The position of the first one's data.
      end: The position after the last one's checksum.
      rows: The numbers of the records among those that are asked for.
    """

    path: str
    start: int
    end: int
    rows: list[int]


class TFRecordReader:
    """Random access to the records of TFRecord files.

    Small files are read into memory. For others the positions of the records are found once, and
    kept by `tfrecord_index.Index`. Records that lie beside each other in a file are read at once. A
    record that is read is checked by its checksum.

    Args:
      instructions: The files of a split and the records of each that belong to it, as TFDS gives
        them in `SplitInfo.file_instructions`.
      cache_bytes: The largest total size in bytes of files that are read into memory.
      index_dir: The folder where the positions are kept; see `tfrecord_index.Index`.

    Raises:
      FileError: A file is missing, its records cannot be told apart, or there are others than the
        description says.
      HostError: The storage is out of reach.
    """

    def __init__(
        self, instructions: Sequence[Any], *, cache_bytes: int, index_dir: str | None = None
    ):
        self._paths = [os.fspath(instruction.filename) for instruction in instructions]
        self._storage = ranges.storage_of(self._paths[0])
        self._reads = Reads(self._storage.threads, remote=is_remote(self._paths[0]))
        found = list(self._reads.pool.map(_file, self._paths))
        self._contents: list[bytes] = []  # The contents of small files.
        if sum(file.size for file in found) <= cache_bytes:
            self._contents = list(self._reads.pool.map(_content, found))
            spans = list(map(_spans_in, found, self._contents))
        else:
            spans = self._indexed(found, index_dir)
        rows = list(map(_selected_rows, instructions, map(len, spans)))
        self._shards = np.repeat(np.arange(len(rows)), [*map(len, rows)])
        # The position and the length of the data of each record.
        self._spans = np.concatenate([of[row] for of, row in zip(spans, rows, strict=True)])

    def _indexed(self, found: list[File], index_dir: str | None) -> list[np.ndarray]:
        """The positions and lengths of the records of large files."""
        index = Index(index_dir)
        spans = index.spans(found, self._reads.pool)
        if index.unkept:
            folder = f"the folder is {index_dir}"
            _log.warning(
                "the index of %d TFRecord files cannot be kept for the next time (%s); %s",
                len(index.unkept),
                index.unkept[0],
                folder if index_dir else "XDG_CACHE_HOME can name a folder for it",
            )
        return spans

    def __len__(self) -> int:
        return len(self._shards)

    def __getitems__(self, indices: Sequence[int]) -> list[bytes | str]:
        """The records; the reason for a damaged one.

        Raises:
          HostError: The storage is out of reach.
        """
        index = np.asarray(indices, np.int64)
        if self._contents:
            shards, spans = self._shards[index].tolist(), self._spans[index].tolist()
            return [
                _checked(self._contents[shard], 0, start, length, self._paths[shard])
                for shard, (start, length) in zip(shards, spans, strict=True)
            ]
        records: list[bytes | str] = [""] * len(index)
        runs = self._runs(index)
        for run, found in zip(runs, self._reads.map(self._read, runs), strict=True):
            for row, (start, length) in zip(run.rows, self._spans[index[run.rows]], strict=True):
                records[row] = (
                    found
                    if isinstance(found, str)
                    else _checked(found, run.start, int(start), int(length), run.path)
                )
        return records

    def _runs(self, index: np.ndarray) -> list[_Run]:
        """Divides records into those that are read at once, in the order of the files."""
        shards, (starts, lengths) = self._shards[index], self._spans[index].T
        ends = starts + lengths + FOOTER
        apart = shards * _APART
        groups = ranges.together(apart + starts, apart + ends, self._storage)
        return [
            _Run(self._paths[shards[rows[0]]], int(starts[rows[0]]), int(ends[rows].max()), rows)
            for rows in groups
        ]

    def _read(self, run: _Run) -> bytes | str:
        """The bytes of a run; the reason where its file was deleted since it was indexed."""
        try:
            return outage.patiently(
                lambda: ranges.read(run.path, run.start, run.end - run.start), run.path
            )
        except Exception as error:
            if outage.is_missing(error):
                return outage.MISSING
            raise


def _checked(data: bytes, begin: int, start: int, length: int, path: str) -> bytes | str:
    """A record among bytes of its file; the reason for a damaged one.

    Args:
      data: The bytes.
      begin: The position of the first of them in the file.
      start: The position of the record's data in the file.
      length: The length of the record's data.
      path: The path of the file, for the message.
    """
    end = start + length - begin
    record = data[start - begin : end]
    if matches(record, data[end : end + FOOTER]):
        return record
    return f"its checksum does not match, at byte {start} of {path}"


def _selected_rows(instruction: Any, available: int) -> np.ndarray:
    """The numbers of a file's records that belong to the split."""
    stop = available if instruction.take in (-1, None) else instruction.skip + instruction.take
    if instruction.examples_in_shard != available or stop > available:
        raise FileError(
            f"{instruction.filename}: {available} records, where the dataset's description has "
            f"{instruction.examples_in_shard}; the file is cut short or of another version"
        )
    return np.arange(instruction.skip, stop)


def _content(file: File) -> bytes:
    """The content of a file."""
    return outage.patiently(lambda: ranges.read(file.path, 0, file.size), file.path)


def _spans_in(file: File, content: bytes) -> np.ndarray:
    """The position and length of each record in a file's content."""
    return spans_of(file.path, file.size, lambda position, n: content[position : position + n])


def _file(path: str) -> File:
    """The state of a file.

    Raises:
      FileError: There is no such file.
    """
    try:
        return file_at(path)
    except tf.errors.NotFoundError as error:
        raise FileError(f"{path}: missing; the dataset's description names it") from error
