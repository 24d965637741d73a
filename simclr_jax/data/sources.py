"""Where images come from: a source is a length and `load(indices)`.

Nothing here knows about order, epochs or augmentation; that is the pipeline's. `open_split` finds
the source for a config's data keys.
"""

import io
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from simclr_jax.data import folder, records
from simclr_jax.data.order import permutation
from simclr_jax.errors import UserError

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

    def describe(self, index: int) -> str:
        """Names image `index` for messages: its file, or its place in the dataset."""
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
            raise ValueError("digits has 'train' and 'test'")
        digits = load_digits()
        order = permutation(len(digits.images), seed=_DIGITS_SEED, stream=0)
        rows = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
        grey = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)
        self._images = [_png(Image.fromarray(image)) for image in grey]
        self._labels = digits.target[rows].astype(np.int32)
        self.split = split

    def __len__(self) -> int:
        return len(self._images)

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
    it is seen, to know that the pipeline will not fail on it.

    With labelled=False the source's labels are not used: all are -1.
    """

    def __init__(self, source: Source, *, on_bad_image: str, labelled: bool = True):
        self._source = source
        self._on_bad_image = on_bad_image
        self._good = np.zeros(len(source), bool)
        self._pool = ThreadPoolExecutor(8)
        self.bad: dict[int, str] = {}
        self.num_classes = source.num_classes if labelled else 0
        self.split = source.split
        self.fingerprint = source.fingerprint
        self.describe = source.describe

    def __len__(self) -> int:
        return len(self._source)

    def load(self, indices: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Like `Source.load`, with replacements: no image is None.

        Raises:
          UserError: an image is unreadable and on_bad_image is 'error', none is readable, or a
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
            raise UserError(
                f"config.data.name: {self.describe(int(indices[row]))} has the label "
                f"{labels[row]}, outside 0 … {self.num_classes - 1}; to pretrain on images "
                "without labels set data.num_classes=0"
            )
        return images, labels  # type: ignore[return-value]

    def _prepare(self, index: int, data: bytes | None) -> bytes | None:
        """The image as JPEG or PNG bytes that TensorFlow decodes, or None."""
        if data is not None and self._good[index]:
            return transcode(data)
        try:
            data = check(data)
        except ValueError as error:
            self._report(int(index), str(error))
            return None
        self._good[index] = True
        return data

    def _report(self, index: int, reason: str) -> None:
        name = self._source.describe(index)
        if self._on_bad_image == "error":
            raise UserError(
                f"config.data.on_bad_image='error': {name} is unreadable ({reason}); "
                "repair or remove it, or set 'replace'"
            )
        if index not in self.bad:
            self.bad[index] = reason
            _log.warning("unreadable image replaced by the next one: %s (%s)", name, reason)

    def _replacement(self, index: int) -> tuple[bytes, int]:
        for step in range(1, len(self)):
            candidate = (index + step) % len(self)
            if candidate in self.bad:
                continue
            (data,), labels = self._source.load([candidate])
            image = self._prepare(candidate, data)
            if image is not None:
                return image, int(labels[0])
        raise UserError(f"config.data.dir: none of the {len(self)} images can be read")


def check(data: bytes | None) -> bytes:
    """Decodes `data` once; returns it as `transcode` does. Raises ValueError with the reason."""
    if not data:
        raise ValueError("missing" if data is None else "empty file")
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except Exception as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else _one_line(error)
        raise ValueError(reason) from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    try:
        data = transcode(data)
        tf.io.decode_image(data, channels=3, expand_animations=False)
    except Exception as error:
        raise ValueError(_one_line(error)) from error
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


def _one_line(error: Exception) -> str:
    line = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error).split("\n")[0]).strip()
    return line[:200] or type(error).__name__


def open_split(
    which: str,
    name: str,
    *,
    directory: str | None,
    train_split: str,
    eval_split: str | None,
    seed: int,
    held_out: float,
    cache_bytes: int,
) -> Source:
    """Opens the training or the evaluation split of a dataset.

    Args:
      which: 'train' or 'eval'.
      name: 'digits', 'folder', or a TFDS name.
      directory: the image folder, or TFDS's data_dir (None: TFDS_DATA_DIR, else its default).
      train_split: the split that is trained on.
      eval_split: the one that is evaluated on. None: test, else val or validation, else a share
        `held_out` of the training images, chosen by `seed`, that training does not see.
      seed: of the run.
      held_out: fraction of the training images.
      cache_bytes: TFRecord files up to this size together are held in memory.

    Raises:
      UserError: there is no such dataset, directory or split, or there are no images in it.
    """
    opener: Callable[[str], Source]
    if name == "digits":
        splits: Sequence[str] = ("train", "test")
        opener = Digits
    elif name == "folder":
        images = folder.Root(directory)
        splits, opener = images.splits, images.open
    else:
        dataset = records.Dataset(name, directory, cache_bytes=cache_bytes)
        splits, opener = dataset.splits, dataset.open

    def open_named(key: str, split: str) -> Source:
        try:
            source = opener(split)
        except ValueError as error:
            raise UserError(f"config.data.{key}={split!r}: {error}") from error
        source.split = split
        return source

    if eval_split is None:
        eval_split = next((split for split in EVAL_SPLITS if split in splits), None)
    if which == "eval" and eval_split is not None:
        return open_named("eval_split", eval_split)
    source = open_named("train_split", train_split)
    if eval_split is not None:
        return source
    order = permutation(len(source), seed=seed, stream=_HELD_OUT_STREAM)
    count = round(len(source) * held_out)
    if not 0 < count < len(source):
        raise UserError(
            f"config.data.held_out={held_out}: is {count} of {len(source)} images; must leave "
            "some on both sides, or name data.eval_split"
        )
    if which == "eval":
        return Subset(
            source, np.sort(order[:count]), f"{count} held out of {train_split} by seed {seed}"
        )
    return Subset(
        source, np.sort(order[count:]), f"{train_split} but {count} held out by seed {seed}"
    )
