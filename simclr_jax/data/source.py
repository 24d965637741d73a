"""Where images come from: a source is a length and `load(indices)`.

Nothing here knows about order, epochs or augmentation; that is the pipeline's.
"""

import logging
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from simclr_jax.data import images as encoded
from simclr_jax.errors import ArgumentError

_log = logging.getLogger(__name__)

Images = list[bytes | None]


class Source(Protocol):
    """Encoded images by index.

    Attributes:
      num_classes: 0 for unlabelled data, whose labels are all -1.
      split: the split's name, once `splits.open_split` has opened it.
      place: Where the images are, to be named in messages before an image's name.
    """

    num_classes: int
    split: str
    place: str

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Changes when the data do; cached features are keyed by it."""
        ...

    def name(self, index: int) -> str:
        """Names image `index` within the dataset: its file, or its place in it."""
        ...

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        """Encoded images (None where one cannot be read) and int32 labels, in the order asked."""
        ...


class Readable:
    """A source in which every image can be decoded, as JPEG or PNG, to RGB.

    An unreadable image is replaced by the next readable one, counted, and named once in the log;
    or, with on_bad_image='error', it ends the run. Each image is decoded once more, the first time
    it is seen and whenever its bytes are others, to know that the pipeline will not fail on it.

    With labelled=False the source's labels are not used: all are -1.
    """

    def __init__(self, source: Source, *, on_bad_image: str, labelled: bool = True):
        self._source = source
        self._on_bad_image = on_bad_image
        self._good = np.zeros(len(source), np.uint32)  # CRC-32 of what was decoded; 0: nothing
        self._pool = ThreadPoolExecutor(8)
        self._lock = threading.Lock()  # the pool's threads report
        self.bad: dict[int, str] = {}
        self.num_classes = source.num_classes if labelled else 0
        self.split = source.split
        self.fingerprint = source.fingerprint
        self.name = source.name

    def __len__(self) -> int:
        return len(self._source)

    def load(self, indices: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Like `Source.load`, with replacements: no image is None.

        Raises:
          ArgumentError: an image is unreadable and on_bad_image is 'error', none is readable, or a
        label is not one of the classes.
        """
        loaded, labels = self._source.load(indices)
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
        """The place and the name of image `index`, quoted so that they cannot forge a line."""
        return repr(f"{self._source.place}/{self.name(index)}")

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
        for step in range(1, len(self)):
            candidate = (index + step) % len(self)
            if candidate in self.bad:
                continue
            (data,), labels = self._source.load([candidate])
            image = self._prepare(candidate, data)
            if image is not None:
                return image, int(labels[0])
        raise ArgumentError("source", self, f"none of the {len(self)} images can be read")
