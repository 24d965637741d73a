"""The interface of a dataset's split, and a wrapper that replaces unreadable images.

A source loads encoded images by index. Order, epochs and augmentation are the pipeline's part.
"""

import logging
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from etils import epy

from simclr_jax import processes
from simclr_jax.augment import host
from simclr_jax.data import images as encoded
from simclr_jax.data.depth import ValueRange
from simclr_jax.errors import ArgumentError, HostError
from simclr_jax.store import outage

with epy.lazy_imports():
    import tensorflow as tf

_log = logging.getLogger(__name__)

Images = list[bytes | str]  # Encoded images; the reason, in words, for one that cannot be read.

MAX_TRIES = 1000  # The largest number of unreadable images in a row.
_LABELS = 128  # The number of labels that are looked at before all are.
# The number of images up to which reading all labels takes seconds, even where they are in records.
FEW_LABELS = 100_000
NAMED = 20  # The largest number of unreadable images that the log names.


class File(NamedTuple):
    """A file that holds an image, or many.

    Attributes:
      path: The path, absolute or within the place of the images.
      size: The number of its bytes.
      modified: The time of its last change, in any unit.
    """

    path: str
    size: int
    modified: float


def file_at(path: str) -> File:
    """The state of the file at a path, on a disk or in a bucket.

    Raises:
      HostError: The storage is out of reach.
      NotFoundError: There is no such file; the error is TensorFlow's.
    """
    found = outage.patiently(lambda: tf.io.gfile.stat(path), path)
    return File(path, found.length, found.mtime_nsec)


class Source(Protocol):
    """A split of a dataset, as encoded images by index.

    Attributes:
      num_classes: The number C of classes; 0 for unlabelled data, whose labels are all -1.
      multilabel: Whether an image can have several labels.
      class_names: The names of the classes, or none where they are not known.
      features: The names of the image and the label in the files' records, or none where each file
        is an image.
      split: The name of the split, once `splits.open_split` has opened it.
      place: The place of the images, which messages put before the name of an image.
    """

    num_classes: int
    multilabel: bool
    split: str
    place: str
    class_names: tuple[str, ...]
    features: tuple[str, ...]

    def __len__(self) -> int: ...

    def files(self) -> Iterable[File]:
        """The files that hold the images, in a fixed order; none for images made in memory."""
        ...

    def name(self, index: int) -> str:
        """The name of an image within the dataset: its file, or its position."""
        ...

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        """Loads images.

        Args:
          indices: The indices of the images, from 0 and below the length.

        Returns:
          The encoded images, with the reason for one that cannot be read, and the labels, both in
          the order of `indices`. The labels are (n,) int32; with `multilabel` (n, C) int8: 1 where
          the image is of the class, 0 where it is not, -1 where neither counts.

        Raises:
          HostError: The storage of the images is out of reach.
        """
        ...

    def labels(self) -> np.ndarray:
        """The labels of all images, as `load` returns them, which are read once.

        Raises:
          HostError: The storage of the labels is out of reach.
        """
        ...


def evenly_spaced(source: Source, count: int) -> list[int]:
    """The indices of at most `count` images, from the first one to the last.

    >>> evenly_spaced(range(10), 4), evenly_spaced(range(2), 4)
    ([0, 3, 6, 9], [0, 1])
    """
    return np.unique(np.linspace(0, len(source) - 1, count).round().astype(np.int64)).tolist()


def has_labels(source: Source) -> bool:
    """Whether any image has a label; all are looked at only where some, evenly spaced, have none.

    Raises:
      HostError: The storage of the labels is out of reach.
    """
    if not source.num_classes:
        return False
    _, some = source.load(evenly_spaced(source, _LABELS))
    return bool((some >= 0).any() or (source.labels() >= 0).any())


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Whether each image has a label, or of several labels one that counts, as bools (n,).

    >>> is_labelled(np.array([2, -1])), is_labelled(np.array([[0, -1], [-1, -1]], np.int8))
    (array([ True, False]), array([ True, False]))

    Args:
      labels: The labels of a source, (n,) or (n, C).
    """
    given = np.asarray(labels >= 0)
    return given if given.ndim == 1 else np.asarray(given.any(axis=1))


def check_labels(labels: np.ndarray, classes: int, name: Callable[[int], str]) -> None:
    """Checks that each label is one of the classes, or -1 for an image without one.

    Args:
      labels: The labels (n,) int.
      classes: The number of classes.
      name: A function from a row to the name of its image, for the message.

    Raises:
      ArgumentError: A label is something else.
    """
    for row in map(int, np.flatnonzero((labels < -1) | (labels >= classes))):
        raise ArgumentError(
            "labelled",
            True,
            f"{name(row)} has the label {labels[row]}, outside 0 … {classes - 1} (-1: none)",
        )


class Readable:
    """A wrapper of a source in which every image can be decoded.

    Each image is decoded to check it when it is first loaded, and again if its bytes have changed.
    An unreadable image is replaced by the next readable one and logged once, or raises an error.

    Args:
      source: The source.
      on_bad_image: The treatment of unreadable images: 'replace' or 'error'.
      labelled: Whether to use the labels. Otherwise all labels are -1.
      value_range: The values that are black and white in images of more than 8 bits; see
        `images.transcode`.

    Attributes:
      bad: The reasons why images are unreadable, by index.
      num_classes: The number of classes; 0 for unlabelled data.
      source: The source that is wrapped.
      split: The name of the split.
      name: The method of the source.
    """

    def __init__(
        self,
        source: Source,
        *,
        on_bad_image: str,
        labelled: bool = True,
        value_range: ValueRange | None = None,
    ):
        host.keep_off_accelerators()
        self.source = source
        self._on_bad_image = on_bad_image
        self._value_range = value_range
        self._oddities = encoded.Oddities(value_range)
        # The CRC-32 of each image that could be decoded, or 0 before.
        self._good = np.zeros(len(source), np.uint32)
        self._pool = ThreadPoolExecutor(8)
        self._lock = threading.Lock()  # The threads of the pool write to `bad`.
        self.bad: dict[int, str] = {}
        self.num_classes = source.num_classes if labelled else 0
        self.split = source.split
        self.name = source.name

    def __len__(self) -> int:
        return len(self.source)

    def load(self, indices: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Loads images like `Source.load`, with unreadable ones replaced.

        Args:
          indices: The indices of the images, from 0 and below the length.

        Returns:
          The images as JPEG or PNG, and the labels; see `Source.load`.

        Raises:
          ArgumentError: An image is unreadable and `on_bad_image` is 'error', none of `MAX_TRIES`
            images in a row is readable, or a label is not one of the classes.
          HostError: The storage of the images is out of reach.
        """
        loaded, labels = self.source.load(indices)
        images = list(self._pool.map(self._prepare, indices, loaded))
        labels = labels.copy()
        for row in [row for row, image in enumerate(images) if image is None]:
            images[row], labels[row] = self._replacement(int(indices[row]))
        if not self.num_classes:
            return images, np.full(len(images), -1, np.int32)  # type: ignore[return-value]
        if not self.multilabel:  # Several labels are checked where they are read.
            check_labels(labels, self.num_classes, lambda row: self.in_words(int(indices[row])))
        return images, labels  # type: ignore[return-value]

    @property
    def multilabel(self) -> bool:
        """Whether an image can have several labels; see `Source`."""
        return self.num_classes > 0 and self.source.multilabel

    def readable(self, indices: np.ndarray) -> np.ndarray:
        """Whether each image could be read, as far as it was tried, as bools (n,)."""
        return np.array([int(index) not in self.bad for index in indices], bool)

    def count_bad(self) -> int:
        """The number of images that any process found unreadable. All must call it together."""
        bad = np.zeros(len(self), bool)
        bad[list(self.bad)] = True
        return int(processes.any_has(bad).sum())

    def in_words(self, index: int) -> str:
        """The place and the name of an image for messages, quoted so that they stay on one line."""
        return repr(f"{self.source.place}/{self.name(index)}")

    def _prepare(self, index: int, data: bytes | str) -> bytes | None:
        """The image as JPEG or PNG bytes that TensorFlow decodes, or None."""
        if isinstance(data, str):
            self._report(int(index), data)
            return None
        crc = zlib.crc32(data)
        if crc == self._good[index] != 0:
            return encoded.transcode(data, self._value_range)
        try:
            image = encoded.decodable(data, self._value_range)
        except ValueError as error:
            self._report(int(index), str(error))
            return None
        self._good[index] = crc
        with self._lock:
            lines = list(self._oddities.of(data))
        for line in lines:
            _log.warning("%s %s", self.in_words(int(index)), line)
        return image

    def _report(self, index: int, reason: str) -> None:
        """Logs an unreadable image, or raises an error for it."""
        name = self.in_words(index)
        if self._on_bad_image == "error":
            raise ArgumentError(
                "on_bad_image",
                "error",
                f"{name} is unreadable ({reason}); repair or remove it, or set 'replace'",
            )
        with self._lock:
            first = index not in self.bad
            self.bad[index] = reason
            count = len(self.bad)
        if first and count <= NAMED:
            _log.warning("unreadable image: %s (%s)", name, reason)
            if count == NAMED:
                _log.warning("further unreadable images are counted, but not named")

    def _replacement(self, index: int) -> tuple[bytes, np.ndarray]:
        """The next readable image after an unreadable one, and its label.

        Images that are known to be unreadable are passed over; of others `MAX_TRIES` are tried, so
        that storage which is gone is not searched from end to end.
        """
        tried = [index]
        for step in range(1, len(self)):
            candidate = (index + step) % len(self)
            if candidate in self.bad:
                continue
            if len(tried) > MAX_TRIES:
                break
            tried.append(candidate)
            (data,), labels = self.source.load([candidate])
            image = self._prepare(candidate, data)
            if image is not None:
                return image, labels[0]
        raise self._unreadable(tried)

    def _unreadable(self, tried: list[int]) -> Exception:
        """The error for images in a row of which none can be read."""
        if all(self.bad[index] == outage.MISSING for index in tried):
            gone = sum(reason == outage.MISSING for reason in self.bad.values())
            return HostError(
                f"{self.source.place}: {gone} images are gone since they were listed; check the "
                "disk or the bucket that they are on, and run the same command again"
            )
        which = f"the {len(self)} images"
        if len(self.bad) < len(self):
            which = f"{len(tried)} images from {self.in_words(tried[0])} on"
        reason = self.bad[tried[-1]]
        return ArgumentError(
            "source", self, f"none of {which} can be read (the last one: {reason})"
        )
