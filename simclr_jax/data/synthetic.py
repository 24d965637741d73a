"""Synthetic images, to measure the speed of the input pipeline without a dataset."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from simclr_jax.data.source import File, Images

DISTINCT = 32  # The number of different images, which are repeated.


class Photos:
    """JPEG images of blurred noise, or .npy files with other channels, all with the label 0.

    At 500 x 375 pixels each has about 100 kB, like the images of ImageNet. The class implements
    `source.Source`, which documents its methods.

    Args:
      length: The number of images.
      width: The width of the images, in pixels.
      height: The height of the images, in pixels.
      channels: The number of channels; with 1 or 3 they are JPEGs.
    """

    num_classes = 1
    multilabel = False
    class_names: tuple[str, ...] = ("photograph",)
    features: tuple[str, ...] = ()
    split = "synthetic"
    place = "synthetic photographs"

    def __init__(self, length: int, *, width: int = 500, height: int = 375, channels: int = 3):
        self._length = length
        rng = np.random.default_rng(0)
        self._images = [_file(_noise(rng, width, height), channels) for _ in range(DISTINCT)]

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


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise (H, W, 3) uint8 that is blurred at a scale of 16 pixels, with finer noise added."""
    coarse = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _file(rgb: np.ndarray, channels: int) -> bytes:
    """The file of an image (H, W, 3) uint8 whose channels are repeated or left out."""
    file = io.BytesIO()
    if channels in (1, 3):
        image = Image.fromarray(rgb)
        (image if channels == 3 else image.convert("L")).save(file, "JPEG", quality=90)
    else:
        np.save(file, np.resize(np.moveaxis(rgb, -1, 0), (channels, *rgb.shape[:2])))
    return file.getvalue()
