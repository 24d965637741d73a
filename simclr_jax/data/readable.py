"""A wrapper of a dataset's split in which every image can be decoded."""

import logging
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from simclr_jax import processes
from simclr_jax.augment import host
from simclr_jax.data import checks
from simclr_jax.data import images as encoded
from simclr_jax.data.arrays import arranged
from simclr_jax.data.depth import ValueRange
from simclr_jax.data.images import Loaded
from simclr_jax.data.kept import Kept
from simclr_jax.data.oddities import Oddities
from simclr_jax.data.source import Source, check_labels, evenly_spaced
from simclr_jax.errors import ArgumentError, HostError
from simclr_jax.store import outage

_log = logging.getLogger(__name__)

MAX_TRIES = 1000  # The largest number of unreadable images in a row.
NAMED = 20  # The largest number of unreadable images that the log names.
# The pixels of an image that is decoded here are used, up to about this number of bytes a batch.
# Others are decoded again when it is their turn: a batch of them would take much memory.
_USED_BYTES = 2**28
_AT_A_TIME = 128  # The largest number of images that are checked or decoded at a time.
_LOOKED_AT = 8  # The number of images whose size is looked at.


class Readable:
    """A wrapper of a source in which every image can be decoded.

    Each image is checked by its first decoding, and again if its bytes have changed. An unreadable
    image is replaced by the next readable one and logged once, or raises an error.

    Args:
      source: The source.
      on_bad_image: The treatment of unreadable images: 'replace' or 'error'.
      labelled: Whether to use the labels. Otherwise all labels are -1.
      value_range: The values that are black and white in images of more than 8 bits; see
        `images.transcode`.
      channels: The number of channels C of the images.
      keep_bytes: The largest number of bytes of the pixels of all images with which small images of
        one size stay in memory, once they are decoded.

    Attributes:
      bad: The reasons why images are unreadable, by index.
      channels: The number of channels C of the images.
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
        channels: int = 3,
        keep_bytes: int = 2**28,
    ):
        host.keep_off_accelerators()
        self.source = source
        self._on_bad_image = on_bad_image
        self._value_range = value_range
        self._oddities = Oddities(value_range, channels)
        self.channels = channels
        # The CRC-32 of each image that could be decoded, or 0 before.
        self._good = np.zeros(len(source), np.uint32)
        self._sizes = np.zeros((len(source), 2), np.int32)  # Height and width of each of them.
        self._kept = Kept(len(source), keep_bytes)
        self._pool = ThreadPoolExecutor(8)
        self._lock = threading.Lock()  # The threads of the pool write to `bad`.
        self.bad: dict[int, str] = {}
        self.num_classes = source.num_classes if labelled else 0
        self.split = source.split
        self.name = source.name

    def __len__(self) -> int:
        return len(self.source)

    def load(self, indices: Sequence[int] | np.ndarray) -> tuple[list[Loaded], np.ndarray]:
        """Loads images like `Source.load`, with unreadable ones replaced.

        Args:
          indices: The indices of the images, from 0 and below the length.

        Returns:
          The images, and the labels; see `Source.load`.

        Raises:
          ArgumentError: An image is unreadable and `on_bad_image` is 'error', none of `MAX_TRIES`
            images in a row is readable, or a label is not one of the classes.
          HostError: The storage of the images is out of reach.
        """
        loaded, labels = self.source.load(indices)  # type: ignore[arg-type]
        images: list[Loaded | None] = []
        used = 0
        for begin in range(0, len(loaded), _AT_A_TIME):
            part = slice(begin, begin + _AT_A_TIME)
            rows = [int(index) for index in indices[part]]
            made = self._prepared(rows, loaded[part], use=used < _USED_BYTES)
            used += sum(len(image.data) for image in made if image is not None and image.decoded)
            images += made
        labels = labels.copy()
        for row in [row for row, image in enumerate(images) if image is None]:
            images[row], labels[row] = self._replacement(int(indices[row]))
        if not self.num_classes:
            return images, np.full(len(images), -1, np.int32)  # type: ignore[return-value]
        if not self.multilabel:  # Several labels are checked where they are read.
            check_labels(labels, self.num_classes, lambda row: self.in_words(int(indices[row])))
        return images, labels  # type: ignore[return-value]

    def load_pixels(self, indices: np.ndarray) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]:
        """Loads the pixels of images, from memory where they are kept there; see `load`.

        Returns:
          The pixels (n, H, W, C) uint8, or a list of arrays where sizes differ, and the labels.
        """
        missing = self._kept.missing(indices)
        if 0 < missing.size < len(indices):
            self._decoded(missing)
            missing = self._kept.missing(indices)
        if not missing.size:
            return self._kept.of(indices)
        pixels, labels = self._decoded(indices)
        same = len({image.shape for image in pixels}) == 1
        return np.stack(pixels) if same else pixels, labels

    def _decoded(self, indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """The pixels and the labels of images, which are kept where they may be."""
        images, labels = self.load(indices)
        # In one graph, for threads would take turns on Python's lock.
        rows = [row for row, image in enumerate(images) if not image.decoded]
        found: dict[int, np.ndarray] = {}
        for begin in range(0, len(rows), _AT_A_TIME):
            part = rows[begin : begin + _AT_A_TIME]
            together = checks.decoded_together([images[row].data for row in part])
            found |= {row: own for row, own in zip(part, together, strict=True) if own is not None}
        large = [row for row in rows if row not in found]
        found |= zip(large, self._pool.map(lambda row: images[row].pixels(), large), strict=True)
        pixels = [
            arranged(found[row], self.channels) if row in found else image.pixels()
            for row, image in enumerate(images)
        ]
        self._kept.add(indices, pixels, labels)
        return pixels, labels

    def small_of_one_size(self) -> bool:
        """Whether some images, evenly spaced, are small and of the same size."""
        images, _ = self.load(evenly_spaced(self, _LOOKED_AT))  # type: ignore[arg-type]
        sizes = {(image.height, image.width) for image in images}
        return len(sizes) == 1 and all(Kept.is_small(*size) for size in sizes)

    @property
    def kept_bytes(self) -> int:
        """The bytes of the pixels of all images, where they stay in memory; else 0."""
        return self._kept.nbytes

    @property
    def multilabel(self) -> bool:
        """Whether an image can have several labels; see `Source`."""
        return self.num_classes > 0 and self.source.multilabel

    def readable(self, indices: np.ndarray) -> np.ndarray:
        """Whether each image could be read, as far as it was tried, as bools (n,)."""
        return np.array([int(index) not in self.bad for index in indices], bool)

    def checked(self, indices: np.ndarray) -> np.ndarray:
        """Whether each image has been checked by this process and is readable, as bools (n,)."""
        return self._good[indices] != 0

    def check_again(self) -> None:
        """Checks each image once more when it is read next, as if it had not been read yet."""
        self._good[:] = 0
        self._kept.clear()

    def bad_in_any(self) -> np.ndarray:
        """The indices (b,) of the images that any process found unreadable, ascending.

        All processes must call it together.
        """
        bad = np.zeros(len(self), bool)
        bad[list(self.bad)] = True
        return np.flatnonzero(processes.any_has(bad))

    def in_words(self, index: int) -> str:
        """The place and the name of an image for messages, quoted so that they stay on one line."""
        return repr(f"{self.source.place}/{self.name(index)}")

    def _prepared(
        self, indices: Sequence[int], loaded: Sequence[bytes | str], *, use: bool = False
    ) -> list[Loaded | None]:
        """Images that TensorFlow decodes, with None for the others, which are reported.

        Args:
          indices: The indices of the images.
          loaded: Their contents, from `Source.load`.
          use: Whether the pixels of small images that are decoded here are used.
        """
        crcs = [0 if isinstance(data, str) else zlib.crc32(data) for data in loaded]
        plain = [not isinstance(data, str) and self._is_plain(data) for data in loaded]
        known = [bool(crc == self._good[i] != 0) for i, crc in zip(indices, crcs, strict=True)]
        new = [row for row in range(len(indices)) if plain[row] and not known[row]]
        # Threads that hold Python's lock by turns are slower than one, so that what is small is
        # decoded in one graph, and what is neither decoded nor converted is not given to them.
        contents: list[Any] = [loaded[row] for row in new]
        found = dict(zip(new, checks.checked_together(contents, self.channels), strict=True))

        def one(row: int) -> Loaded | None:
            index, data = indices[row], loaded[row]
            if isinstance(data, str):
                self._report(index, data)
                return None
            if known[row]:
                return self._again(index, data, use)
            return self._checked(index, data, crcs[row], found.get(row), use)

        long = [
            row
            for row in range(len(indices))
            if found.get(row) is None and not (known[row] and plain[row])
        ]
        made = dict(zip(long, self._pool.map(one, long), strict=True))
        return [made[row] if row in made else one(row) for row in range(len(indices))]

    def _again(self, index: int, data: bytes, use: bool) -> Loaded:
        """An image that was read before."""
        height, width = map(int, self._sizes[index])
        small, found = use and height * width <= checks.TOGETHER_PIXELS, None
        if self.channels not in encoded.ENCODED or (small and not self._is_plain(data)):
            found = encoded.pixels(data, self._value_range, self.channels)
        return self._image(data, height, width, found)

    def _image(self, data: bytes, height: int, width: int, pixels: np.ndarray | None) -> Loaded:
        """An image by its pixels, or else as JPEG or PNG."""
        if pixels is not None:
            return Loaded(pixels.tobytes(), height, width, True, self.channels)
        content = encoded.transcode(data, self._value_range, self.channels)
        return Loaded(content, height, width, False, self.channels)

    def _is_plain(self, data: bytes) -> bool:
        """Whether TensorFlow decodes an image as it is."""
        return encoded.is_plain(data, self._value_range, self.channels)

    def _checked(
        self, index: int, data: bytes, crc: int, found: checks.Checked | None, use: bool
    ) -> Loaded | None:
        """An image that is read for the first time, which may be checked already."""
        try:
            if found is None:
                found = checks.checked(data, self._value_range, self.channels)
            elif found.pixels is not None:
                found = found._replace(pixels=arranged(found.pixels, self.channels))
        except ValueError as error:
            self._report(index, str(error))
            return None
        height, width, pixels, converted = found
        self._good[index], self._sizes[index] = crc, (height, width)
        with self._lock:
            lines = list(self._oddities.of(data))
        for line in lines:
            _log.warning("%s %s", self.in_words(index), line)
        small = use and height * width <= checks.TOGETHER_PIXELS
        used = small or self.channels not in encoded.ENCODED
        return self._image(converted or data, height, width, pixels if used else None)

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

    def _replacement(self, index: int) -> tuple[Loaded, np.ndarray]:
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
            (image,) = self._prepared([candidate], [data])
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
