"""The digits of scikit-learn, a dataset that needs no download."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from simclr_jax.data.images import as_png
from simclr_jax.data.order import permutation
from simclr_jax.data.source import File, Images
from simclr_jax.errors import ArgumentError

DIGITS_TRAIN = 1437  # The number of images of the training split.
_DIGITS_SEED = 0  # The seed of the division into splits, the same in every run.


class Digits:
    """A split of scikit-learn's 8x8 digits: 1,437 images for training or 360 for testing.

    It implements `source.Source`, which documents its methods.

    Args:
      split: The split, 'train' or 'test'.

    Raises:
      ArgumentError: There is no such split.

    >>> len(Digits("train")), len(Digits("test")), Digits("test").name(0)
    (1437, 360, 'test/0')
    """

    num_classes = 10
    multilabel = False
    class_names: tuple[str, ...] = tuple("0123456789")
    features: tuple[str, ...] = ()
    place = "digits"

    def __init__(self, split: str):
        if split not in ("train", "test"):
            raise ArgumentError("split", split, "digits has 'train' and 'test'")
        pixels, labels = _read()
        order = permutation(len(pixels), seed=_DIGITS_SEED, stream=0)
        rows = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
        grey = np.round(pixels[rows] * (255 / 16)).astype(np.uint8)
        self._images = [as_png(Image.fromarray(image)) for image in grey]
        self._labels = labels[rows].astype(np.int32)
        self.split = split

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def files(self) -> list[File]:
        return []

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return [self._images[i] for i in indices], self._labels[np.asarray(indices)]

    def labels(self) -> np.ndarray:
        return self._labels


def _read() -> tuple[np.ndarray, np.ndarray]:
    """The pixels (n, 8, 8) in [0, 16] and the labels (n,) of all digits, float64.

    They are read without scikit-learn, which takes seconds to import, where its file is in its
    usual place.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target
