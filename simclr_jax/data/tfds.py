"""TFDS datasets with random access to their records, in ArrayRecord or TFRecord files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epy

from simclr_jax import processes
from simclr_jax.data import tfds_keys
from simclr_jax.data.array_record import ArrayRecordReader
from simclr_jax.data.prepared import open_builder
from simclr_jax.data.source import (
    FEW_LABELS,
    File,
    Images,
    check_labels,
    evenly_spaced,
    file_at,
)
from simclr_jax.data.tfds_labels import Label, SeveralLabels
from simclr_jax.data.tfrecord import TFRecordReader
from simclr_jax.errors import ArgumentError, one_line

with epy.lazy_imports():
    import tensorflow as tf
    import tensorflow_datasets as tfds

# The number of labels that are looked at when a split is opened, and where none of them is there.
_LABELS, _MORE_LABELS = 128, 1024
_PART = 1024  # The number of records that are read at a time for all labels.


class Dataset:
    """A prepared TFDS dataset, with an image and an optional label among its features.

    Args:
      name: The name of the dataset, such as 'cifar10' or 'cifar10:3.0.2'.
      directory: The data_dir of TFDS. With None it is the environment variable TFDS_DATA_DIR, or
        else the default of TFDS.
      cache_bytes: The largest total size in bytes of TFRecord files that are read into memory.
      index_dir: The folder where the positions of records in larger ones are kept, on a disk or in
        a bucket; None: the user's cache.
      image_key: The name of the image feature. With None it is that of the dataset's
        supervised_keys, else 'image', else the only one.
      label_key: The name of the label feature. With None it is found in the same way.
      labelled: Whether the labels are used.

    Attributes:
      splits: The names of the splits.

    Raises:
      ArgumentError: There is no such dataset, it is not prepared, it has no images, or which
        feature is the image or the label is unclear.
    """

    def __init__(
        self,
        name: str,
        directory: str | None,
        *,
        cache_bytes: int,
        index_dir: str | None,
        image_key: str | None,
        label_key: str | None,
        labelled: bool,
    ):
        self._name = name
        self._cache_bytes, self._index_dir = cache_bytes, index_dir
        self._builder = open_builder(name, directory)
        self.splits = tuple(self._builder.info.splits)
        self._image_key = tfds_keys.image_key(name, self._builder.info, image_key)
        self._label = tfds_keys.label(name, self._builder.info, label_key) if labelled else None

    def open(self, split: str) -> Records:
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
            reader = TFRecordReader(
                info.file_instructions, cache_bytes=self._cache_bytes, index_dir=self._index_dir
            )
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
            label=self._label,
            num_classes=0 if self._classes is None else int(self._classes.num_classes),
            class_names=self._class_names(),
            place=f"{self._name}/{self._builder.version}",
            split=split,
        )

    @property
    def _classes(self) -> Any:
        """The ClassLabel of the label; None without one."""
        return self._label and tfds_keys.classes_of(self._builder.info, self._label.keys[0])

    def _class_names(self) -> tuple[str, ...]:
        """The names of the classes of the label, or none where it has none but their numbers."""
        if self._classes is None:
            return ()
        names = tuple(self._classes.names)
        return () if names == tuple(map(str, range(len(names)))) else names


class Records:
    """A split of a TFDS dataset, whose serialised examples are parsed a batch at a time.

    It implements `source.Source`, which documents its methods.

    Args:
      reader: The reader of serialised examples by index.
      paths: The paths of the files that it reads.
      image_key: The name of the image feature.
      label: How labels are read, or None for unlabelled data.
      num_classes: The number of classes; 0 for unlabelled data. It becomes 0 where no example that
        is looked at has a label, as in the test splits of some datasets.
      class_names: The names of the classes, or none where they are not known.
      place: The name and the version of the dataset, for messages.
      split: The name of the split.
    """

    def __init__(
        self,
        reader: Any,
        *,
        paths: list[str],
        image_key: str,
        label: Label | None,
        num_classes: int,
        class_names: tuple[str, ...],
        place: str,
        split: str,
    ):
        self._reader = reader
        self._paths = paths
        self._image_key = image_key
        self._label = label
        self.multilabel = isinstance(label, SeveralLabels)
        self.num_classes, self.class_names = num_classes, class_names
        self.place, self.split = place, split
        self.features: tuple[str, ...] = (image_key, *(label.keys if label else ("",)))
        self._all_labels: np.ndarray | None = None
        self._image = {image_key: tf.io.FixedLenFeature([], tf.string)}
        if label:
            self._look_at_labels(label)

    def _look_at_labels(self, label: Label) -> None:
        """Finds out whether the split has labels, from some of them, evenly spaced.

        Raises:
          ArgumentError: A label is not one of the classes.
        """
        labels = self._labels_of(evenly_spaced(self, _LABELS))
        if not label.given(labels).any():
            labels = self._labels_of(evenly_spaced(self, _MORE_LABELS))
        without, where = int((~label.given(labels)).sum()), f"{self.place}: {self.split!r}"
        seen = f"{len(labels)} images that were looked at, of {len(self)}"
        if without == len(labels):
            self.num_classes = 0
            processes.say(f"{where} has no labels: none in {seen}")
        elif without and not self.multilabel:
            processes.say(f"{where} lacks the labels of {without} in {seen}")

    def _labels_of(self, indices: list[int]) -> np.ndarray:
        """The labels of the readable images among those with some indices, each checked."""
        images, labels = self.load(indices)
        if not self.multilabel:
            check_labels(
                labels, self.num_classes, lambda row: f"{self.place}/{self.name(indices[row])}"
            )
        return labels[[isinstance(image, bytes) for image in images]]

    def __len__(self) -> int:
        return len(self._reader)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def files(self) -> list[File]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(file_at, self._paths))

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        features = self._image | (self._label.features() if self._label else {})
        return self._read([int(index) for index in indices], features)

    def labels(self) -> np.ndarray:
        if self._all_labels is None:
            if len(self) > FEW_LABELS:
                processes.say(f"{self.place}: reading the labels of {len(self)} images")
            starts = range(0, len(self), _PART)
            self._all_labels = np.concatenate([self._labels_from(start) for start in starts])
        return self._all_labels

    def _labels_from(self, start: int) -> np.ndarray:
        """The labels of `_PART` records at most; -1 for one that is damaged or has none."""
        indices = range(start, min(start + _PART, len(self)))
        if self._label is None:
            return np.full(len(indices), -1, np.int32)
        return self._read(indices, self._label.features())[1]

    def _read(self, indices: Sequence[int], features: dict[str, Any]) -> tuple[Images, np.ndarray]:
        """Some features of records, as `load` returns them."""
        records = self._reader.__getitems__(indices)
        images, labels = list(records), self._no_labels(len(records))
        rows = [row for row, record in enumerate(records) if isinstance(record, bytes)]
        parsed = self._parsed([records[row] for row in rows], features)
        for row, (image, label) in zip(rows, parsed, strict=True):
            images[row], labels[row] = image, label
        return images, labels

    def _no_labels(self, count: int) -> np.ndarray:
        """The labels of records of which none can be read."""
        return self._label.none(count) if self._label else np.full(count, -1, np.int32)

    def _parsed(
        self, records: list[bytes], features: dict[str, Any]
    ) -> list[tuple[bytes | str, Any]]:
        """The image and the label of each record; the reason for one that is no such example.

        Args:
          records: The records.
          features: Those of the two that are wanted; others are b"" and -1.
        """
        labels = self._no_labels(len(records))
        try:
            parsed = tf.io.parse_example(tf.constant(records, tf.string), features)
        except tf.errors.InvalidArgumentError as error:
            if len(records) == 1:
                return [
                    (
                        f"not an example with the dataset's features: {one_line(error, 200)}",
                        labels[0],
                    )
                ]
            return [found for record in records for found in self._parsed([record], features)]
        images = [b""] * len(records)
        if self._image_key in features:
            images = list(parsed[self._image_key].numpy())
        if self._label and self._label.keys[0] in features:
            labels = self._label.read(parsed)
        return list(zip(images, labels, strict=True))
