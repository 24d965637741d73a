"""The interface of a dataset's split.

A source loads encoded images by index. Order, epochs and augmentation are the pipeline's part.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from etils import epy

from simclr_jax.errors import ArgumentError
from simclr_jax.store import outage

with epy.lazy_imports():
    import tensorflow as tf

_log = logging.getLogger(__name__)

Images = list[bytes | str]  # Encoded images; the reason, in words, for one that cannot be read.

_LABELS = 128  # The number of labels that are looked at before all are.
# The number of images up to which reading all labels takes seconds, even where they are in records.
FEW_LABELS = 100_000


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
