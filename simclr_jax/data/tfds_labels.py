"""The labels in the records of a TFDS dataset: one of each image, or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from etils import epy

from simclr_jax.errors import ArgumentError

with epy.lazy_imports():
    import tensorflow as tf


class Label(Protocol):
    """How the label of an image is read from its record.

    Attributes:
      keys: The names of the features that it is read from.
    """

    @property
    def keys(self) -> tuple[str, ...]: ...

    def features(self) -> dict[str, Any]:
        """The features, as `tf.io.parse_example` takes them."""
        ...

    def read(self, parsed: Mapping[str, Any]) -> np.ndarray:
        """The labels of parsed records, as `Source.load` returns them."""
        ...

    def none(self, count: int) -> np.ndarray:
        """The labels of records that cannot be read."""
        ...

    def given(self, labels: np.ndarray) -> np.ndarray:
        """Which labels show that the split has labels, as bools (n,)."""
        ...


class OneLabel(NamedTuple):
    """A label an image, the feature `key`; -1: none."""

    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def features(self) -> dict[str, Any]:
        return {self.key: tf.io.FixedLenFeature([], tf.int64)}

    def read(self, parsed: Mapping[str, Any]) -> np.ndarray:
        return parsed[self.key].numpy().astype(np.int32)

    def none(self, count: int) -> np.ndarray:
        return np.full(count, -1, np.int32)

    def given(self, labels: np.ndarray) -> np.ndarray:
        return labels >= 0


class SeveralLabels(NamedTuple):
    """Any number of labels an image, which a list of classes names.

    Attributes:
      keys: The name of the feature; or the names of two, of all classes of an image and of those
        among them of which an object is not difficult. The others then are not counted (-1).
      classes: The number C of classes.
    """

    keys: tuple[str, ...]
    classes: int

    def features(self) -> dict[str, Any]:
        return {key: tf.io.RaggedFeature(tf.int64) for key in self.keys}

    def read(self, parsed: Mapping[str, Any]) -> np.ndarray:
        listed, certain = (self._listed(parsed, key) for key in (self.keys[0], self.keys[-1]))
        return np.where(certain, 1, np.where(listed, -1, 0)).astype(np.int8)

    def _listed(self, parsed: Mapping[str, Any], key: str) -> np.ndarray:
        """Which classes a feature lists, as bools (n, C).

        Raises:
          ArgumentError: It lists something else.
        """
        rows, labels = parsed[key].value_rowids().numpy(), parsed[key].values.numpy()
        for label in map(int, labels[(labels < -1) | (labels >= self.classes)]):
            raise ArgumentError(
                "labelled",
                True,
                f"{key!r} has the label {label}, outside 0 … {self.classes - 1} (-1: none)",
            )
        found = np.zeros((int(parsed[key].nrows()), self.classes), bool)
        found[rows[labels >= 0], labels[labels >= 0]] = True
        return found

    def none(self, count: int) -> np.ndarray:
        return np.full((count, self.classes), -1, np.int8)

    def given(self, labels: np.ndarray) -> np.ndarray:
        # An image of no class is an example of none; a split of such images alone has no labels.
        return (labels != 0).any(axis=1)
