"""Synthetic images, to measure the speed of the input pipeline without a dataset."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from simclr_jax.data.source import File, Images

DISTINCT = 32  # The number of different images, which are repeated.


class Photos:
    """JPEG images of blurred noise, all with the label 0.

    At 500 x 375 pixels each has about 100 kB, like the images of ImageNet. The class implements
    `source.Source`, which documents its methods.

    Args:
      length: The number of images.
      width: The width of the images, in pixels.
      height: The height of the images, in pixels.
    """

    num_classes = 1
    multilabel = False
    class_names: tuple[str, ...] = ("photograph",)
    features: tuple[str, ...] = ()
    split = "synthetic"
    place = "synthetic photographs"

    def __init__(self, length: int, *, width: int = 500, height: int = 375):
        self._length = length
        rng = np.random.default_rng(0)
        self._images = [_jpeg(rng, width, height) for _ in range(DISTINCT)]

    def __len__(self) -> int:
        return self._length

    def files(self) -> list[File]:
        return []

    def name(self, index: int) -> str:
        return str(index)

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        images: Images = [self._images[index % DISTINCT] for index in indices]
        return images, np.zeros(len(images), np.int32)

    def labels(self) -> np.ndarray:
        return np.zeros(len(self), np.int32)


def _jpeg(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG image of noise that is blurred at a scale of 16 pixels, with finer noise added."""
    coarse = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
