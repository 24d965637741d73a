"""The interface of a dataset's split, and a wrapper that replaces unreadable images.

A source loads encoded images by index. Order, epochs and augmentation are the pipeline's part.
"""

import logging
import threading
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from simclr_jax.data import images as encoded
from simclr_jax.errors import ArgumentError

_log = logging.getLogger(__name__)

Images = list[bytes | None]  # Encoded images; None for one that could not be read.


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


class Source(Protocol):
    """A split of a dataset, as encoded images by index.

    Attributes:
      num_classes: The number of classes; 0 for unlabelled data, whose labels are all -1.
      split: The name of the split, once `splits.open_split` has opened it.
      place: The place of the images, which messages put before the name of an image.
    """

    num_classes: int
    split: str
    place: str

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
          The encoded images, with None for one that cannot be read, and the labels (n,) int32, both
          in the order of `indices`.
        """
        ...


class Readable:
    """A wrapper of a source in which every image can be decoded.

    Each image is decoded to check it when it is first loaded, and again if its bytes have changed.
    An unreadable image is replaced by the next readable one and logged once, or raises an error.

    Args:
      source: The source.
      on_bad_image: The treatment of unreadable images: 'replace' or 'error'.
      labelled: Whether to use the labels. Otherwise all labels are -1.

    Attributes:
      bad: The reasons why images are unreadable, by index.
      num_classes: The number of classes; 0 for unlabelled data.
      source: The source that is wrapped.
      split: The name of the split.
      name: The method of the source.
    """

    def __init__(self, source: Source, *, on_bad_image: str, labelled: bool = True):
        self.source = source
        self._on_bad_image = on_bad_image
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
          The images as JPEG or PNG, and the labels (n,) int32.

        Raises:
          ArgumentError: An image is unreadable and `on_bad_image` is 'error', no image of the
            source is readable, or a label is not one of the classes.
        """
        loaded, labels = self.source.load(indices)
        images = list(self._pool.map(self._prepare, indices, loaded))
        labels = labels.copy()
        for row in [row for row, image in enumerate(images) if image is None]:
            images[row], labels[row] = self._replacement(int(indices[row]))
        if not self.num_classes:
            labels[:] = -1
            return images, labels  # type: ignore[return-value]
        for row in map(int, np.flatnonzero((labels < 0) | (labels >= self.num_classes))):
            raise ArgumentError(
                "labelled",
                True,
                f"{self.in_words(int(indices[row]))} has the label {labels[row]}, outside "
                f"0 … {self.num_classes - 1}",
            )
        return images, labels  # type: ignore[return-value]

    def in_words(self, index: int) -> str:
        """The place and the name of an image for messages, quoted so that they stay on one line."""
        return repr(f"{self.source.place}/{self.name(index)}")

    def _prepare(self, index: int, data: bytes | None) -> bytes | None:
        """The image as JPEG or PNG bytes that TensorFlow decodes, or None."""
        crc = zlib.crc32(data or b"")
        if data is not None and crc == self._good[index] != 0:
            return encoded.transcode(data)
        try:
            data = encoded.decodable(data)
        except ValueError as error:
            self._report(int(index), str(error))
            return None
        self._good[index] = crc
        return data

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
        if first:
            _log.warning("unreadable image left out: %s (%s)", name, reason)

    def _replacement(self, index: int) -> tuple[bytes, int]:
        """The next readable image after an unreadable one, and its label."""
        for step in range(1, len(self)):
            candidate = (index + step) % len(self)
            if candidate in self.bad:
                continue
            (data,), labels = self.source.load([candidate])
            image = self._prepare(candidate, data)
            if image is not None:
                return image, int(labels[0])
        raise ArgumentError("source", self, f"none of the {len(self)} images can be read")
