"""Which labels of the training images are seen: few of each class, drawn by a seed, or a list.

A draw is a function of the label seed and the labels alone. Each class has an order of its own, of
which a draw takes the first images; so a smaller draw is part of every larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from simclr_jax.data.order import permutation
from simclr_jax.data.source import Images, Source, check_labels
from simclr_jax.data.splits import Subset
from simclr_jax.errors import ArgumentError
from simclr_jax.store import files, outage

# The stream of the permutation. It is larger than any epoch's number, and not that of `splits`:
# with the seed of a run, the images that are drawn are not those of the beginning of an epoch.
_STREAM = 2**32 + 1


class Chosen(NamedTuple):
    """The images of a source whose labels are seen.

    Attributes:
      rows: The indices of the images, ascending, (n,) int64.
      words: The choice as text, such as '1 % of the labels: 500 of 50000 images, 50 a class'.
    """

    rows: np.ndarray
    words: str


def few(labels: np.ndarray, counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The first images of each class in an order.

    >>> few(np.array([0, 1, 0, 1, 0]), np.array([2, 1]), order=np.array([4, 3, 2, 1, 0]))
    array([4, 2, 3])

    Args:
      labels: The labels (n,) int; -1: an image without one.
      counts: The number of images of each class, (C,) int; no more than there are.
      order: A permutation of the images, (n,) int.

    Returns:
      The indices of the images, class after class, in the order within each, int64.
    """
    grouped = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[grouped], np.arange(len(counts)))
    parts = [grouped[start : start + n] for start, n in zip(starts, counts, strict=True)]
    return np.concatenate(parts)


def available(labels: np.ndarray, classes: int) -> np.ndarray:
    """The number of images of each class, (C,) int64, among labels (n,) of which -1 is none."""
    return np.bincount(labels[labels >= 0], minlength=classes)


def check_examples(
    train: np.ndarray, test: np.ndarray, *, train_split: str, names: Sequence[str]
) -> None:
    """Checks that every class of the evaluation images has an example among the training images.

    With several labels an image, a class needs an image without it too.

    Args:
      train: The labels of the training images, (m,) or (m, C); -1: none.
      test: Those of the evaluation images, (n,) or (n, C).
      train_split: The name of the training split, for the error.
      names: The names of the classes, or none.

    Raises:
      ArgumentError: A class has none.
    """
    lacks = "no example of"
    if test.ndim == 2:
        lacks = "no images both with and without"
        learnt = (train == 1).any(axis=0) & (train == 0).any(axis=0)
        without = np.flatnonzero((test == 1).any(axis=0) & ~learnt)
    else:
        without = np.setdiff1d(test[test >= 0], train)
    if len(without):
        named = f" ({names[without[0]]!r})" if names else ""
        more = f", nor of {len(without) - 1} others" if len(without) > 1 else ""
        reason = f"has {lacks} class {without[0]}{named}, which the evaluation split has{more}"
        raise ArgumentError("train_split", train_split, reason)


def by_fraction(source: Source, fraction: float, *, seed: int) -> Chosen:
    """Draws a fraction of the labels, balanced as the classes are.

    Of a class with n labelled images the nearest whole number to fraction·n is drawn, but at least
    one image. For 1 % of ImageNet, whose classes have 732 to 1,300 images, that is 7 to 13 images,
    and 12.8 on average.

    Args:
      source: The training images.
      fraction: The fraction, above 0 and at most 1.
      seed: The seed of the draw, below 2⁶⁴.

    Raises:
      ArgumentError: A class has no labelled image.

    Reference: Chen et al. 2020, section 5 (arXiv 2002.05709), has about 12.8 images a class.
    """
    labels, there = _labels(source, "label_fraction", fraction)
    _check_enough(source, there, 1, "label_fraction", fraction)
    counts = np.maximum(1, np.round(fraction * there).astype(np.int64))
    rows = few(labels, counts, permutation(len(labels), seed=seed, stream=_STREAM))
    return _chosen(rows, labels, f"{100 * fraction:g} % of the labels")


def by_class(source: Source, per_class: int, *, seed: int) -> Chosen:
    """Draws the same number of labels of each class.

    Args:
      source: The training images.
      per_class: The number of images of each class, at least 1.
      seed: The seed of the draw, below 2⁶⁴.

    Raises:
      ArgumentError: A class has fewer labelled images.
    """
    labels, there = _labels(source, "labels_per_class", per_class)
    _check_enough(source, there, per_class, "labels_per_class", per_class)
    order = permutation(len(labels), seed=seed, stream=_STREAM)
    rows = few(labels, np.full(len(there), per_class), order)
    return _chosen(rows, labels, "few labels")


def by_list(source: Source, path: str) -> Chosen:
    """Takes the labels of the images that a file names, one a line.

    A name is that of `Source.name`: a path within the split, or TFDS's 'train/7'. The last part of
    a path is enough where no other image has it, as in the lists that the authors published.

    Args:
      source: The training images.
      path: The path of the file, local or in a bucket.

    Raises:
      ArgumentError: There is no such file, it has names that are no images of the split, or images
        without a label, or no image of some class.
    """
    names = _names(path)
    index = {source.name(row): row for row in range(len(source))}
    ends: dict[str, int | None] = {}
    for name, row in index.items():
        ends[name.rpartition("/")[2]] = None if name.rpartition("/")[2] in ends else row
    found = [index.get(name, ends.get(name)) for name in names]
    unknown = [name for name, row in zip(names, found, strict=True) if row is None]
    if unknown:
        raise ArgumentError(
            "label_list",
            path,
            f"{len(unknown)} of its {len(names)} names are no images of {source.split!r}, such as "
            f"{unknown[0]!r}; a name there is {source.name(0)!r}",
        )
    labels, _ = _labels(source, "label_list", path)
    rows = np.unique(np.array(found, np.int64))
    if without := int((labels[rows] < 0).sum()):
        first = source.name(int(rows[labels[rows] < 0][0]))
        reason = f"{without} of the images that it names have no label, such as {first!r}"
        raise ArgumentError("label_list", path, reason)
    listed = available(labels[rows], source.num_classes)
    _check_enough(source, listed, 1, "label_list", path)
    return _chosen(rows, labels, "the labels of a list")


class Seen(Subset):
    """A source of which some labels are seen; those of all other images are -1.

    Args:
      source: The source.
      chosen: The images whose labels are seen.
    """

    def __init__(self, source: Source, chosen: Chosen):
        super().__init__(source, np.arange(len(source)), f"{source.split} with {chosen.words}")
        self.rows = chosen.rows
        self._is_seen = np.zeros(len(source), bool)
        self._is_seen[chosen.rows] = True

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        images, labels = super().load(indices)
        return images, np.where(self._is_seen[np.asarray(indices)], labels, np.int32(-1))

    def labels(self) -> np.ndarray:
        return np.where(self._is_seen, super().labels(), np.int32(-1))


def alone(source: Source, chosen: Chosen) -> Subset:
    """The images whose labels are seen, without all others."""
    return Subset(source, chosen.rows, f"{source.split} with {chosen.words}")


def _labels(source: Source, argument: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a source, and the number of images of each class.

    Raises:
      ArgumentError: There are no labels, or one is not one of the classes.
    """
    if not source.num_classes:
        raise ArgumentError(argument, value, f"{source.split!r} has no labels to choose from")
    labels = source.labels()
    check_labels(labels, source.num_classes, lambda row: f"{source.place}/{source.name(row)}")
    return labels, available(labels, source.num_classes)


def _check_enough(
    source: Source, there: np.ndarray, wanted: int, argument: str, value: Any
) -> None:
    """Raises an error where a class has fewer images than are wanted."""
    fewest = int(there.argmin())
    if there[fewest] < wanted:
        name = f" ({source.class_names[fewest]!r})" if source.class_names else ""
        where = "in the list" if argument == "label_list" else f"of {source.split!r}"
        reason = f"class {fewest}{name} has {there[fewest]} labelled images {where}"
        raise ArgumentError(argument, value, f"{reason}, and needs {wanted}")


def _chosen(rows: np.ndarray, labels: np.ndarray, what: str) -> Chosen:
    counts = np.bincount(labels[rows])
    low, high = counts.min(), counts.max()
    each = f"{low}" if low == high else f"{low} to {high}"
    words = f"{what}: {len(rows)} of {len(labels)} images, {each} a class"
    return Chosen(np.sort(rows), words)


def _names(path: str) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
      ArgumentError: There is no such file, or there is no name in it.
      HostError: The file is in Google's storage, whose client is not installed.
    """
    files.check_client(path)
    file = epath.Path(path).expanduser()
    if not outage.exists(file) or outage.is_dir(file):
        raise ArgumentError("label_list", path, "no such file")
    data = outage.patiently(file.read_bytes, path)
    lines = data.decode("utf-8-sig", "surrogateescape").split("\n")
    names = [line.rstrip("\r") for line in lines if line.strip()]
    if not names:
        raise ArgumentError("label_list", path, "the file has no names")
    return names
