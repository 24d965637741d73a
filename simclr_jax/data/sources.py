"""Where images come from: a source is a length and `load(indices)`.

Nothing here knows about order, epochs or augmentation; that is the pipeline's. `open_split` finds
the source for a config's data keys.
"""

import io
import logging
import re
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from simclr_jax.data import folder, records
from simclr_jax.data.order import permutation
from simclr_jax.errors import ArgumentError, one_line

MAX_PIXELS = 2**27  # 134 megapixels: more is a decompression bomb, not a photograph
EVAL_SPLITS = ("test", "val", "validation")
DIGITS_TRAIN = 1437
_DIGITS_SEED = 0
_HELD_OUT_STREAM = 2**32  # a permutation stream that no epoch number reaches

_log = logging.getLogger(__name__)

Images = list[bytes | None]


class Source(Protocol):
    """Encoded images by index.

    Attributes:
      num_classes: 0 for unlabelled data, whose labels are all -1.
      split: the split's name, once `open_split` has opened it.
    """

    num_classes: int
    split: str

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Changes when the data do; cached features are keyed by it."""
        ...

    def name(self, index: int) -> str:
        """Names image `index` within the dataset: its file, or its place in it."""
        ...

    def describe(self, index: int) -> str:
        """Names image `index` for messages."""
        ...

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        """Encoded images (None where one cannot be read) and int32 labels, in the order asked."""
        ...


class Digits:
    """scikit-learn's 8x8 digits, shuffled once: 1,437 for training and 360 for testing."""

    num_classes = 10

    def __init__(self, split: str):
        from sklearn.datasets import load_digits

        if split not in ("train", "test"):
            raise ArgumentError("split", split, "digits has 'train' and 'test'")
        digits = load_digits()
        order = permutation(len(digits.images), seed=_DIGITS_SEED, stream=0)
        rows = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
        grey = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)
        self._images = [_png(Image.fromarray(image)) for image in grey]
        self._labels = digits.target[rows].astype(np.int32)
        self.split = split

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def describe(self, index: int) -> str:
        return f"digit {index}"

    def fingerprint(self) -> str:
        return f"digits {self.split}"

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return [self._images[i] for i in indices], self._labels[np.asarray(indices)]


class Subset:
    """Some of a source's images."""

    def __init__(self, source: Source, indices: np.ndarray, name: str):
        self._source = source
        self._indices = indices
        self.num_classes = source.num_classes
        self.split = name

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._source.name(int(self._indices[index]))

    def describe(self, index: int) -> str:
        return self._source.describe(int(self._indices[index]))

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()} {self.split}"

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return self._source.load(self._indices[np.asarray(indices)])


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
        self.describe = source.describe
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
                f"{self.describe(int(indices[row]))} has the label {labels[row]}, outside "
                f"0 … {self.num_classes - 1}",
            )
        return images, labels  # type: ignore[return-value]

    def _prepare(self, index: int, data: bytes | None) -> bytes | None:
        """The image as JPEG or PNG bytes that TensorFlow decodes, or None."""
        crc = zlib.crc32(data or b"")
        if data is not None and crc == self._good[index] != 0:
            return transcode(data)
        try:
            data = check(data)
        except ValueError as error:
            self._report(int(index), str(error))
            return None
        self._good[index] = crc
        return data

    def _report(self, index: int, reason: str) -> None:
        name = self._source.describe(index)
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


def check(data: bytes | None) -> bytes:
    """Decodes `data` once; returns it as `transcode` does. Raises ValueError with the reason."""
    if not data:
        raise ValueError("missing" if data is None else "empty file")
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except Exception as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise ValueError(reason) from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    try:
        data = transcode(data)
        tf.io.decode_image(data, channels=3, expand_animations=False)
    except Exception as error:
        raise ValueError(_reason(error)) from error
    return data


def transcode(data: bytes) -> bytes:
    """JPEG and PNG as they are; anything else that Pillow reads (its first frame) as PNG."""
    if data.startswith((b"\xff\xd8", b"\x89PNG")):
        return data
    with Image.open(io.BytesIO(data)) as image:
        return _png(image.convert("RGB"))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """The message without what TensorFlow says of its operations."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", one_line(error, 300)).strip()[:200]


class Splits:
    """A dataset's splits, as a config's data keys name them.

    Args:
      name: 'digits', 'folder', or a TFDS name.
      directory: the image folder, or TFDS's data_dir (None: TFDS_DATA_DIR, else its default).
      train_split: the split that is trained on.
      eval_split: the one that is evaluated on. None: test, else val or validation, else none.
      cache_bytes: TFRecord files up to this size together are held in memory.

    Raises:
      ArgumentError: there is no such dataset, directory or split, or there are no images in it.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: str | None,
        train_split: str,
        eval_split: str | None,
        cache_bytes: int,
    ):
        names: Sequence[str]
        self._opener: Callable[[str], Source]
        if name == "digits":
            names, self._opener = ("train", "test"), Digits
        elif name == "folder":
            images = folder.Root(directory)
            names, self._opener = images.splits, images.open
        else:
            dataset = records.Dataset(name, directory, cache_bytes=cache_bytes)
            names, self._opener = dataset.splits, dataset.open
        self._train = train_split
        self._eval = eval_split or next((split for split in EVAL_SPLITS if split in names), None)

    def train(self) -> Source:
        """All of train_split."""
        return self._open("train_split", self._train)

    @property
    def has_eval(self) -> bool:
        """Whether a split to evaluate on is named or found."""
        return self._eval is not None

    def eval(self) -> Source | None:
        """The split that is evaluated on, if one is named or found."""
        return None if self._eval is None else self._open("eval_split", self._eval)

    def _open(self, argument: str, split: str) -> Source:
        try:
            source = self._opener(split)
        except ArgumentError as error:
            if error.argument != "split":
                raise
            raise ArgumentError(argument, split, error.reason) from error
        source.split = split
        return source


def open_split(which: str, splits: Splits, *, seed: int, held_out: float) -> Source:
    """Opens what is trained on ('train') or evaluated on ('eval').

    Without a split to evaluate on, that is a share `held_out` of the training images, chosen by
    `seed`, that training does not see.

    Raises:
      ArgumentError: as `Splits`, or the share is none or all of the images.
    """
    if which == "eval" and (source := splits.eval()) is not None:
        return source
    source = splits.train()
    if splits.has_eval:
        return source
    order = permutation(len(source), seed=seed, stream=_HELD_OUT_STREAM)
    count = round(len(source) * held_out)
    if not 0 < count < len(source):
        raise ArgumentError(
            "held_out",
            held_out,
            f"is {count} of {len(source)} images; must leave some on both sides",
        )
    rows, name = {
        "eval": (order[:count], f"{count} held out of {source.split} by seed {seed}"),
        "train": (order[count:], f"{source.split} but {count} held out by seed {seed}"),
    }[which]
    return Subset(source, np.sort(rows), name)
