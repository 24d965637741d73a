"""The pixels of small images of one size, kept in memory once they are decoded."""

import threading
from collections.abc import Sequence

import numpy as np

SMALL_PIXELS = 64 * 64  # The largest number of pixels of a small image.


class Kept:
    """The pixels and labels of a dataset's images.

    Args:
      count: The number of images of the dataset.
      most_bytes: The largest number of bytes of all images' pixels; of more, none is kept.
    """

    def __init__(self, count: int, most_bytes: int):
        self._most = most_bytes
        self._has = np.zeros(count, bool)
        self._pixels = self._labels = np.zeros((0,), np.uint8)
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """The bytes that all images take once they are kept; 0 before the first one is."""
        return self._pixels.nbytes

    @staticmethod
    def is_small(height: int, width: int) -> bool:
        """Whether an image of a size in pixels is one that may be kept."""
        return height * width <= SMALL_PIXELS

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """The indices among some whose images are not kept."""
        return indices[~self._has[indices]]

    def add(self, indices: np.ndarray, pixels: Sequence[np.ndarray], labels: np.ndarray) -> None:
        """Keeps the images that are small and of the size of the first one.

        Args:
          indices: The indices of the images, (n,) int.
          pixels: The images (H, W, C), uint8.
          labels: Their labels, (n,) int32 or (n, C) int8.
        """
        with self._lock:
            for index, image, label in zip(indices, pixels, labels, strict=True):
                if not len(self._pixels):
                    total = len(self._has) * image.size
                    if not self.is_small(*image.shape[:2]) or total > self._most:
                        return
                    self._pixels = np.zeros((len(self._has), *image.shape), np.uint8)
                    self._labels = np.zeros((len(self._has), *label.shape), labels.dtype)
                if image.shape == self._pixels.shape[1:]:
                    self._pixels[index], self._labels[index] = image, label
                    self._has[index] = True

    def clear(self) -> None:
        """Keeps none of the images any more, but their place in memory."""
        with self._lock:
            self._has[:] = False

    def of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels (n, H, W, C) uint8 and the labels of images that are kept."""
        return self._pixels[indices], self._labels[indices]
