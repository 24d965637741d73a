"""The images by which a protocol chooses between values: never those that it is tested on."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from simclr_jax.config import rules
from simclr_jax.config.sources import readable
from simclr_jax.data.order import permutation
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import is_labelled
from simclr_jax.data.splits import Subset
from simclr_jax.evals.features import Features
from simclr_jax.evals.task import Task

# The stream of the permutation: larger than any epoch's number, and than that of the images that
# `data.splits` holds out.
_STREAM = 2**32 + 1
ROWS = 8192  # The number of rows that are looked at a time for images for validation.


class Chosen(NamedTuple):
    """The labelled images of an evaluation, besides those that it is tested on.

    Attributes:
      parts: The features of the training split and, where there is one, of the validation split.
      train: Which of their rows the values are tried on, bools (n,).
      validation: Which of them tell the better value, bools (n,).
      name: What these are, in words.
    """

    parts: list[Features]
    train: np.ndarray
    validation: np.ndarray
    name: str

    @property
    def labels(self) -> np.ndarray:
        """The labels of all parts; see `Features`."""
        return np.concatenate([part.labels for part in self.parts])

    def to_choose_by(self) -> Iterator[Features]:
        """Yields the images for validation, some at a time."""
        start = 0
        for x, labels in self.parts:
            chosen = self.validation[start : start + len(x)]
            for first in range(0, len(x), ROWS):
                rows = first + np.flatnonzero(chosen[first : first + ROWS])
                if len(rows):
                    yield Features(x[rows], labels[rows])
            start += len(x)


def choose(task: Task, *, key: str, held_out: float) -> Chosen:
    """The images to choose by: the dataset's validation split, or a part of the training split.

    Args:
      task: The task.
      key: The key of the fraction, for the error.
      held_out: The fraction of the training images that is held out where there is no validation
        split; see `held_out_rows`.

    Raises:
      UserError: No image has a label to choose by.
    """
    source = task.validation  # First, since it may be refused, before anything is computed.
    parts = [task.features(task.train)] + ([] if source is None else [task.features(source)])
    labels, first = np.concatenate([part.labels for part in parts]), len(parts[0].labels)
    if source is None:
        validation = held_out_rows(labels, held_out, seed=task.config.seed)
        name = f"{validation.sum()} held out of {task.train.split} by seed {task.config.seed}"
    else:
        validation = (np.arange(len(labels)) >= first) & is_labelled(labels)
        name = f"{validation.sum()} of {source.split}"
    if not validation.any():
        raise rules.wrong(key, held_out, f"a fraction that leaves images to choose by, not {name}")
    return Chosen(parts, is_labelled(labels) & ~validation, validation, name)


def divide(task: Task, held_out: float) -> tuple[Readable, Readable, str]:
    """The images to train on, and those to choose by, before their features are computed.

    Args:
      task: The task.
      held_out: See `choose`.

    Returns:
      Both splits, and the second one in words.
    """
    source, seed = task.validation, task.config.seed
    if source is not None:
        return task.train, source, f"{len(source)} of {source.split}"
    held = held_out_rows(task.train.source.labels(), held_out, seed=seed)
    name = f"{held.sum()} held out of {task.train.split} by seed {seed}"
    parts = (np.flatnonzero(rows) for rows in (~held, held))
    first, second = (Subset(task.train.source, rows, name) for rows in parts)
    return readable(task.run_config, first), readable(task.run_config, second), name


def held_out_rows(labels: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """Which images are held out, a fraction of each class, as bools (n,).

    With several labels an image, it is a fraction of all images.

    >>> held_out_rows(np.array([0, 0, 0, 0, 1, 1, 2, -1]), 0.25, seed=0).sum()
    np.int64(2)

    Args:
      labels: The labels, (n,) or (n, C); images without a label are not held out.
      fraction: The fraction, rounded to whole images of a class: at least one, but not all.
      seed: The seed of the draw.
    """
    order = permutation(len(labels), seed=seed, stream=_STREAM)
    found = np.zeros(len(labels), bool)
    labels = labels if labels.ndim == 1 else is_labelled(labels) - 1  # All of one class, or none.
    for label in np.unique(labels[labels >= 0]):
        rows = order[labels[order] == label]
        found[rows[: min(len(rows) - 1, max(1, round(fraction * len(rows))))]] = True
    return found
