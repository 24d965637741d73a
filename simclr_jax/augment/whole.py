"""Views of whole batches of small images, by one program for the host's own CPU."""

from __future__ import annotations

from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.augment import device, draws, keys
from simclr_jax.augment.draws import Views


class Whole:
    """The augmentation of batches whose images are of one size, but for what the device applies.

    It is for small images, most of whose time one by one is that of the calls.

    Args:
      views: The settings of the augmentation.
      seed: The seed of the augmentations.
      dtype: The dtype of the views: 'uint8', for the nearest of 256 levels, or 'float32'.

    Attributes:
      dtype: The argument of that name.
      shape: The shape of the views of an image, (V, S, S, 3).
    """

    def __init__(self, views: Views, *, seed: int, dtype: str):
        self._views, self._seed, self.dtype = views, seed, dtype
        self.shape = views.count, views.size, views.size, 3

    @property
    def can(self) -> bool:
        """Whether it can make batches of these views.

        Nothing but a crop may come before the operations that a batch can have, and JAX must have
        the CPU, which it has not where JAX_PLATFORMS names a GPU alone.
        """
        crops = ((), ("crop",), ("shared_crop",))
        ops = all(self._views.places(view).early in crops for view in range(self._views.count))
        return ops and _cpu() is not None

    def make(self, pixels: np.ndarray, index: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Makes the views of images.

        Args:
          pixels: The images (n, H, W, 3), uint8.
          index: The index in the dataset of each image, (n,) int.
          epoch: The epoch of each, (n,) int.

        Returns:
          The views (n, V, S, S, 3), of the dtype.
        """
        height, width = (np.full(len(pixels), side, np.int32) for side in pixels.shape[1:3])
        full = np.stack([0 * height, 0 * width, height, width], axis=1)
        of_views, boxes = self._keys(index, epoch), []
        for view, of_view in enumerate(of_views):
            names = self._views.places(view).early
            drawn = draws.draw(of_view, height, width, self._views, view, names)
            boxes.append(drawn[names[0]] if names else full)
        numbers = device.numbers_of(device.late_of(self._views, "host"), of_views, self._views)
        with jax.default_device(_cpu()):
            return np.asarray(self._program(pixels, np.stack(boxes, axis=1), numbers))

    def _keys(self, index: np.ndarray, epoch: np.ndarray) -> list[np.ndarray]:
        count = self._views.count
        return [keys.image_keys(self._seed, epoch, index, view) for view in range(count)]

    @cached_property
    def _program(self) -> jax.stages.Wrapped:
        return jax.jit(partial(_made, views=self._views, dtype=self.dtype))


def _cpu() -> jax.Device | None:
    """The host's own CPU; None where JAX was told to leave it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _made(
    images: jax.Array, boxes: jax.Array, numbers: device.Numbers, *, views: Views, dtype: str
) -> jax.Array:
    """Crops images (n, H, W, 3) by boxes (n, V, 4), and applies the other operations."""
    crops = [
        device.crop_and_resize(images, boxes[:, view], views.size) for view in range(views.count)
    ]
    late = device.late_of(views, "host")
    made = device.apply(jnp.stack(crops, axis=1), numbers, late, in_turn=True)
    exact = dtype == "float32" and views.left_to_device  # The device clips it.
    made = made if exact else jnp.clip(made, 0.0, 1.0)
    return made if dtype == "float32" else jnp.round(made * 255.0).astype(jnp.uint8)
