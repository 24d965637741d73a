"""TFDS datasets with random access to their records, in ArrayRecord or TFRecord files."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from simclr_jax.data.array_record import ArrayRecordReader
from simclr_jax.data.source import File, Images
from simclr_jax.data.tfrecord import TFRecordReader
from simclr_jax.errors import ArgumentError, is_of_storage, one_line
from simclr_jax.store import outage


class Dataset:
    """A prepared TFDS dataset, with an image and an optional label among its features.

    Args:
      name: The name of the dataset, such as 'cifar10' or 'cifar10:3.0.2'.
      directory: The data_dir of TFDS. With None it is the environment variable TFDS_DATA_DIR, or
        else the default of TFDS.
      cache_bytes: The largest total size in bytes of TFRecord files that are read into memory.

    Attributes:
      splits: The names of the splits.

    Raises:
      ArgumentError: There is no such dataset, it is not prepared, or it has no images.
    """

    def __init__(self, name: str, directory: str | None, *, cache_bytes: int):
        self._name = name
        self._cache_bytes = cache_bytes
        searched = directory or os.environ.get("TFDS_DATA_DIR") or "TFDS's default data_dir"
        directory = directory and os.path.expanduser(directory)
        try:
            self._builder = tfds.builder(name, data_dir=directory)
        except Exception as error:  # TFDS raises errors of many types for an unknown name.
            if is_of_storage(error) and not outage.is_missing(error):
                raise
            base, _, version = name.partition(":")
            folder = epath.Path(directory or os.environ.get("TFDS_DATA_DIR") or ".") / base
            versions = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            if version and versions:
                raise ArgumentError(
                    "name",
                    name,
                    f"version {version} is not prepared in {searched}; there are "
                    f"{', '.join(versions)}",
                ) from error
            raise ArgumentError(
                "name",
                name,
                "not 'folder' or 'digits', no dataset that TFDS knows, and none prepared in "
                f"{searched}",
            ) from error
        self.splits = tuple(self._builder.info.splits)
        if not self.splits:
            raise ArgumentError(
                "directory",
                directory,
                f"{name!r} is not prepared in {searched}; prepare it with `tfds build {name}`, or "
                "name the data_dir that holds it",
            )
        self._image_key, self._label_key, self._num_classes = _features(name, self._builder)

    def open(self, split: str) -> "Records":
        """Opens a split or a slice of one, such as 'train[:90%]'.

        Raises:
          ArgumentError: There is no such split, it is empty, or its files have another format than
            ArrayRecord and TFRecord.
        """
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
            records = self._builder.as_data_source(split=split).data_source
            reader: Any = ArrayRecordReader(records, f"{self._name}/{split}")
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
            paths=[os.fspath(instruction.filename) for instruction in info.file_instructions],
            image_key=self._image_key,
            label_key=self._label_key,
            num_classes=self._num_classes,
            place=f"{self._name}/{self._builder.version}",
            split=split,
        )


def _features(name: str, builder: Any) -> tuple[str, str | None, int]:
    """The names of the image and label features, and the number of classes.

    Without a label its name is None, and the number of classes is 0.
    """
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
    """A split of a TFDS dataset, whose serialised examples are parsed a batch at a time.

    It implements `source.Source`, which documents its methods.

    Args:
      reader: The reader of serialised examples by index.
      paths: The paths of the files that it reads.
      image_key: The name of the image feature.
      label_key: The name of the label feature, or None for unlabelled data.
      num_classes: The number of classes; 0 for unlabelled data.
      place: The name and the version of the dataset, for messages.
      split: The name of the split.
    """

    def __init__(
        self,
        reader: Any,
        *,
        paths: list[str],
        image_key: str,
        label_key: str | None,
        num_classes: int,
        place: str,
        split: str,
    ):
        self._reader = reader
        self._paths = paths
        self._image_key = image_key
        self._label_key = label_key
        self.num_classes = num_classes
        self.place, self.split = place, split
        self._parse = {image_key: tf.io.FixedLenFeature([], tf.string)}
        if label_key:
            self._parse[label_key] = tf.io.FixedLenFeature([], tf.int64)

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def files(self) -> Iterable[File]:
        with ThreadPoolExecutor(16) as pool:
            stats = list(pool.map(_stat, self._paths))
        for path, found in zip(self._paths, stats, strict=True):
            yield File(path, found.length, found.mtime_nsec)

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        records = self._reader.__getitems__([int(index) for index in indices])
        images, labels = list(records), np.full(len(records), -1, np.int32)
        rows = [row for row, record in enumerate(records) if isinstance(record, bytes)]
        parsed = self._parsed([records[row] for row in rows])
        for row, (image, label) in zip(rows, parsed, strict=True):
            images[row], labels[row] = image, label
        return images, labels

    def _parsed(self, records: list[bytes]) -> list[tuple[bytes | str, int]]:
        """The image and the label of each record; the reason for one that is no such example."""
        try:
            parsed = tf.io.parse_example(tf.constant(records, tf.string), self._parse)
        except tf.errors.InvalidArgumentError as error:
            if len(records) == 1:
                return [(f"not an example with the dataset's features: {one_line(error, 200)}", -1)]
            return [found for record in records for found in self._parsed([record])]
        labels = [-1] * len(records)
        if self._label_key is not None:
            labels = parsed[self._label_key].numpy().tolist()
        return list(zip(parsed[self._image_key].numpy(), labels, strict=True))


def _stat(path: str) -> Any:
    """The size and the time of the last change of a file."""
    return outage.patiently(lambda: tf.io.gfile.stat(path), path)
