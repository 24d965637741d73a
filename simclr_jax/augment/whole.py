"""Views that are made or ended by the batch, by one program for the host's own CPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax import mesh as meshes
from simclr_jax.augment import all_views, device, keys
from simclr_jax.augment.draws import Views

TOGETHER = 8  # The number of images whose views are ended in one call of the program.


class Whole:
    """The augmentation of batches of images, but for what the device applies.

    Small images of one size are made as a whole, since one by one most of their time is that of the
    calls. Of others the operations at the end are applied, which a program for all of them does
    faster than one for each of them.

    Args:
      views: The settings of the augmentation.
      seed: The seed of the augmentations.
      dtype: The dtype of the views: 'uint8', for the nearest of 256 levels, or 'float32'.

    Attributes:
      dtype: The argument of that name.
      shape: The shape of the views of an image, (V, S, S, C).
    """

    def __init__(self, views: Views, *, seed: int, dtype: str):
        self._views, self._seed, self.dtype = views, seed, dtype
        self._late = device.late_of(views, "host")
        self.shape = views.count, views.size, views.size, views.channels

    @property
    def can_make(self) -> bool:
        """Whether it can make batches of these views.

        Nothing but a crop may come before the operations that a batch can have, and JAX must have
        the CPU, which it has not where JAX_PLATFORMS names a GPU alone.
        """
        crops = ((), ("crop",), ("shared_crop",))
        ops = all(self._views.places(view).early in crops for view in range(self._views.count))
        return ops and _cpu() is not None

    @property
    def can_end(self) -> bool:
        """Whether these views have operations at their end, which it can apply."""
        return any(self._late.ops) and _cpu() is not None

    @property
    def before(self) -> list[tuple[str, ...]]:
        """The operations of each view that are applied to images one by one."""
        of = [self._views.places(view) for view in range(self._views.count)]
        return [each.early if self.can_end else each.early + each.host for each in of]

    def make(self, pixels: np.ndarray, index: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Makes the views of images.

        Args:
          pixels: The images (n, H, W, C), uint8.
          index: The index in the dataset of each image, (n,) int.
          epoch: The epoch of each, (n,) int.

        Returns:
          The views (n, V, S, S, C), of the dtype.
        """
        height, width = (np.full(len(pixels), side, np.int32) for side in pixels.shape[1:3])
        full = np.stack([0 * height, 0 * width, height, width], axis=1)
        names = [self._views.places(view).early for view in range(self._views.count)]
        drawn = all_views.draw(self.keys(index, epoch), height, width, self._views, names)
        boxes = [draw[own[0]] if own else full for draw, own in zip(drawn, names, strict=True)]
        with jax.default_device(_cpu()):
            numbers = self.numbers(index, epoch)
            return np.asarray(self._made(pixels, np.stack(boxes, axis=1), numbers))

    def numbers(self, index: np.ndarray, epoch: np.ndarray) -> dict[str, np.ndarray]:
        """The random numbers of the operations at the end; see `device.numbers_of`.

        Args:
          index: The index in the dataset of each image, (n,) int.
          epoch: The epoch of each, (n,) int.
        """
        return device.numbers_of(self._late, self.keys(index, epoch), self._views)

    def end(self, views: np.ndarray, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
        """Applies the operations at the end to views that have all those before them.

        Args:
          views: The views (n, V, S, S, C), float32; they can leave the range [0, 1].
          numbers: Their random numbers, from `numbers`.

        Returns:
          The views (n, V, S, S, C), of the dtype.
        """
        made = []
        with jax.default_device(_cpu()):
            for start in range(0, len(views), TOGETHER):
                part, rows = views[start : start + TOGETHER], np.arange(start, start + TOGETHER)
                if len(part) < TOGETHER:  # The program is compiled for one number of images.
                    rows = rows.clip(max=len(views) - 1)
                    part = views[rows]
                own = {name: array[rows] for name, array in numbers.items()}
                made.append(np.asarray(self._ended(part, own)))
        return np.concatenate(made)[: len(views)]

    def keys(self, index: np.ndarray, epoch: np.ndarray) -> list[np.ndarray]:
        """The keys (n, 2) int64 of each view of images; see `numbers` for the arguments."""
        count = self._views.count
        return [keys.image_keys(self._seed, epoch, index, view) for view in range(count)]

    @cached_property
    def _made(self) -> jax.stages.Wrapped:
        def made(images: jax.Array, boxes: jax.Array, numbers: device.Numbers) -> jax.Array:
            size, count = self._views.size, self._views.count
            crops = [device.crop_and_resize(images, boxes[:, v], size) for v in range(count)]
            return self._last(jnp.stack(crops, axis=1), numbers)

        return jax.jit(made, compiler_options=meshes.loop_options())

    @cached_property
    def _ended(self) -> jax.stages.Wrapped:
        return jax.jit(self._last, compiler_options=meshes.loop_options())

    def _last(self, views: jax.Array, numbers: device.Numbers) -> jax.Array:
        """Applies the late operations to views (n, V, S, S, C), and converts them."""
        exact = self.dtype == "float32"

        def converted(view: jax.Array) -> jax.Array:
            if exact and self._views.left_to_device:  # The device clips it.
                return view
            view = jnp.clip(view, 0.0, 1.0)
            return view if exact else jnp.round(view * 255.0).astype(jnp.uint8)

        return device.apply_in_turn(views, numbers, self._late, converted)


def _cpu() -> jax.Device | None:
    """The host's own CPU; None where JAX was told to leave it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
