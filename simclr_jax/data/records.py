"""TFDS datasets by random access: ArrayRecord as it is, TFRecord through an index of offsets."""

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
import tensorflow_datasets as tfds
from etils import epath

from simclr_jax.errors import ArgumentError, FileError
from simclr_jax.store import files

# A TFRecord is: length uint64, its CRC uint32, the data, their CRC uint32.
_HEADER, _FOOTER = 12, 4


class Dataset:
    """A prepared TFDS dataset; its features must include one image, and may include one label."""

    def __init__(self, name: str, directory: str | None, *, cache_bytes: int):
        self._name = name
        self._cache_bytes = cache_bytes
        where = directory or os.environ.get("TFDS_DATA_DIR") or "TFDS's default data_dir"
        directory = directory and os.path.expanduser(directory)
        try:
            self._builder = tfds.builder(name, data_dir=directory)
        except Exception as error:  # of many kinds, by what TFDS makes of the name
            base, _, version = name.partition(":")
            folder = epath.Path(directory or os.environ.get("TFDS_DATA_DIR") or ".") / base
            there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            if version and there:
                raise ArgumentError(
                    "name",
                    name,
                    f"version {version} is not prepared in {where}; there are {', '.join(there)}",
                ) from error
            raise ArgumentError(
                "name",
                name,
                "not 'folder' or 'digits', no dataset that TFDS knows, and none prepared in "
                f"{where}",
            ) from error
        self.splits = tuple(self._builder.info.splits)
        if not self.splits:
            raise ArgumentError(
                "directory",
                directory,
                f"{name!r} is not prepared in {where}; prepare it with `tfds build {name}`, or "
                "name the data_dir that holds it",
            )
        self._image_key, self._label_key, self._num_classes = _features(name, self._builder)

    def open(self, split: str) -> "Records":
        try:
            info = self._builder.info.splits[split]
        except (KeyError, ValueError) as error:
            reason = (
                f"{self._name} has {', '.join(self.splits)} and slices of them, as 'train[:90%]'"
            )
            raise ArgumentError("split", split, reason) from error
        if info.num_examples == 0:
            raise ArgumentError("split", split, "there are no examples in it")
        formats = tfds.core.file_adapters.FileFormat
        if self._builder.info.file_format == formats.ARRAY_RECORD:
            reader: Any = self._builder.as_data_source(split=split).data_source
        elif self._builder.info.file_format == formats.TFRECORD:
            reader = TFRecordReader(info.file_instructions, cache_bytes=self._cache_bytes)
        else:
            raise ArgumentError(
                "name",
                self._name,
                f"prepared as {self._builder.info.file_format}; only ArrayRecord and TFRecord are "
                "read",
            )
        return Records(
            reader,
            image_key=self._image_key,
            label_key=self._label_key,
            num_classes=self._num_classes,
            name=f"{self._name}/{self._builder.version}/{split}",
        )


def _features(name: str, builder: Any) -> tuple[str, str | None, int]:
    """(image key, label key, classes) of a dataset's features; the label may be absent."""
    image_key = label_key = None
    classes = 0
    for key, feature in builder.info.features.items():
        if isinstance(feature, tfds.features.Image) and image_key is None:
            image_key = key
        if isinstance(feature, tfds.features.ClassLabel) and label_key is None:
            label_key, classes = key, feature.num_classes
    if image_key is None:
        raise ArgumentError("name", name, "its features hold no image")
    return image_key, label_key, classes


class Records:
    """One split: serialised examples from `reader`, parsed a batch at a time."""

    split = ""

    def __init__(
        self, reader: Any, *, image_key: str, label_key: str | None, num_classes: int, name: str
    ):
        self._reader = reader
        self._image_key = image_key
        self._label_key = label_key
        self.num_classes = num_classes
        self._name = name
        self._parse = {image_key: tf.io.FixedLenFeature([], tf.string)}
        if label_key:
            self._parse[label_key] = tf.io.FixedLenFeature([], tf.int64)

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def describe(self, index: int) -> str:
        return f"record {index} of {self._name}"

    def fingerprint(self) -> str:
        return f"tfds {self._name} {len(self)}"

    def load(self, indices: Sequence[int]) -> tuple[list[bytes | None], np.ndarray]:
        raw = self._reader.__getitems__([int(index) for index in indices])
        parsed = tf.io.parse_example(tf.constant(raw, tf.string), self._parse)
        images = list(parsed[self._image_key].numpy())
        if self._label_key is None:
            return images, np.full(len(images), -1, np.int32)
        return images, parsed[self._label_key].numpy().astype(np.int32)


class TFRecordReader:
    """Random access to TFRecord files.

    Together at most `cache_bytes` large they are held in memory; otherwise the offsets of their
    records are found once and kept in the user's cache, since the data's folder may be read-only.
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
                for rows in [_taken(instruction, len(offsets))]
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


def _taken(instruction: Any, available: int) -> np.ndarray:
    """Rows of a shard that a split's slice asks for."""
    stop = available if instruction.take in (-1, None) else instruction.skip + instruction.take
    if instruction.examples_in_shard != available or stop > available:
        raise FileError(
            f"{instruction.filename}: {available} records, where the dataset's description has "
            f"{instruction.examples_in_shard}; the file is cut short or of another version"
        )
    return np.arange(instruction.skip, stop)


def _read_shard(path: str, size: int) -> tuple[bytes | None, np.ndarray]:
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
    """An index that was found before; None where there is none, or it is damaged."""
    try:
        spans = np.load(path, allow_pickle=False)
        starts, lengths = spans.astype(np.int64).T
    except (OSError, EOFError, ValueError):
        return None
    ends = np.concatenate([[0], starts + lengths + _FOOTER])  # of each record, and of what precedes
    whole = ends[-1] == size and np.array_equal(ends[:-1] + _HEADER, starts)
    return spans if whole and (lengths >= 0).all() else None


def _spans(path: str, spans: list[tuple[int, int]], end: int, size: int) -> np.ndarray:
    if end != size:
        raise FileError(
            f"{path}: its last record ends at byte {end} of {size}; the file is damaged"
        )
    return np.array(spans, np.int64).reshape(-1, 2)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "simclr_jax" / "tfrecord_index"
