"""Augmentations of batches, on the device inside the train step or on the host's own CPU.

Shapes: N images of S x S pixels with C channels. A batch has V views of each of n images, so
N = n·V.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.augment import all_views, colour
from simclr_jax.augment.draws import Jitter, Views, blur_taps

Numbers = Mapping[str, Any]  # Random numbers by the name of the operation, of each image or view.


@dataclass(frozen=True)
class Late:
    """The operations at the end of the augmentation, which are applied to a batch.

    Attributes:
      ops: The names of the operations of each view, from `draws.LATE`, in their order.
      brightness: The version of the brightness operation; see `draws.Views`.
      blur_radius: The radius of the blur's kernel, in pixels.
    """

    ops: tuple[tuple[str, ...], ...] = ()
    brightness: str = "v2"
    blur_radius: int = 0


def late_of(views: Views, place: str) -> Late:
    """The operations of views that are applied to a batch at a place, 'host' or 'device'."""
    ops = tuple(getattr(views.places(view), place) for view in range(views.count))
    return Late(ops, views.brightness, blur_taps(views.size) // 2)


def numbers_of(late: Late, keys: list[np.ndarray], views: Views) -> dict[str, np.ndarray]:
    """The random numbers of the late operations of a batch.

    Args:
      late: The operations.
      keys: The keys (n, 2) int64 of each view.
      views: The settings of the augmentation.

    Returns:
      For each operation of any view an array, with what leaves an image unchanged where a view has
      none: "flip" (n, V) bool, "jitter" (n, V, 9) float32, "grey" (n, V) bool, and "blur" (n, V)
      float32, the sigma in pixels.
    """
    side = np.full(len(keys[0]), views.size)
    drawn = all_views.draw(keys, side, side, views, late.ops)
    unchanged = {"flip": False, "jitter": np.float32(0.0), "grey": False, "blur": np.float32(0.0)}
    found = {}
    for name in dict.fromkeys(name for ops in late.ops for name in ops):
        arrays = [_packed(draw[name]) if name in draw else None for draw in drawn]
        shape = next(array.shape for array in arrays if array is not None)
        empty = np.full(shape, unchanged[name])
        found[name] = np.stack([empty if array is None else array for array in arrays], axis=1)
    return found


def in_batch(numbers: Mapping[str, np.ndarray], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Numbers by their names in a batch, where the blur's, "blur_sigma", are always there.

    Args:
      numbers: The numbers, from `numbers_of`.
      shape: The numbers of images and of views.
    """
    named = {name: array for name, array in numbers.items() if name != "blur"}
    return named | {"blur_sigma": numbers.get("blur", np.zeros(shape, np.float32))}


def _packed(draw: Any) -> np.ndarray:
    """A draw as one array; the numbers of a `Jitter` (n, 9) float32, in their order."""
    if not isinstance(draw, Jitter):
        return draw
    *factors, order = draw
    return np.concatenate([np.stack(factors, axis=1), order], axis=1).astype(np.float32)


def _unpacked(name: str, draw: jax.Array) -> Any:
    """The draw of an operation from its array (N, …)."""
    if name != "jitter":
        return draw
    applied, brightness, contrast, saturation, hue = draw[:, :5].T
    order = draw[:, 5:].astype(jnp.int32)
    return Jitter(applied > 0, brightness, contrast, saturation, hue, order)


def views_of(batch: Mapping[str, jax.Array], late: Late = Late()) -> jax.Array:
    """The views of a batch as the input of the network, with the views of an image in sequence.

    Args:
      batch: "image" (n, V, S, S, C), uint8 or float in [0, 1], and the numbers of the operations
        that the device applies, from `numbers_of`, with the blur's as "blur_sigma".
      late: The operations that the device applies.

    Returns:
      The views (n·V, S, S, C), float in [0, 1].
    """
    images = to_float(batch["image"])
    numbers = {**batch, "blur": batch["blur_sigma"]} if "blur_sigma" in batch else batch
    made = apply(images, numbers, late)
    return made.reshape(-1, *made.shape[2:])


def apply(images: jax.Array, numbers: Numbers, late: Late) -> jax.Array:
    """Applies the late operations to the views of a batch.

    Args:
      images: The views (n, V, S, S, C), float.
      numbers: The random numbers, from `numbers_of`.
      late: The operations.

    Returns:
      The views (n, V, S, S, C), float; clipped to [0, 1] where there is any operation.
    """

    def together(images: jax.Array, drawn: Numbers, ops: tuple[str, ...]) -> jax.Array:
        return _applied(images, drawn, ops, late, colour.distort)

    return _by_ops(together, images, numbers, late) if any(late.ops) else images


def apply_in_turn(
    images: jax.Array, numbers: Numbers, late: Late, then: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Applies the late operations to one view after the other, as a CPU does fastest.

    Args:
      images: The views (n, V, S, S, C), float.
      numbers: The random numbers, from `numbers_of`.
      late: The operations.
      then: A function of what `apply` makes of each view, (S, S, C), which the result is of.

    Returns:
      The views (n, V, …).
    """

    def distorted(image: jax.Array, drawn: Numbers, *args: Any, **options: Any) -> jax.Array:
        own = jax.tree.map(lambda array: array[0], drawn)
        return colour.distort_one(image[0], own, *args, **options)[None]

    def in_turn(images: jax.Array, drawn: Numbers, ops: tuple[str, ...]) -> jax.Array:
        def one(args: tuple[jax.Array, Numbers]) -> jax.Array:
            image, own = jax.tree.map(lambda array: array[None], args)
            return then(
                _applied(image, own, ops, late, distorted)[0] if any(late.ops) else image[0]
            )

        return jax.lax.map(one, (images, drawn))

    return _by_ops(in_turn, images, numbers, late)


def _by_ops(
    function: Callable[[jax.Array, Numbers, tuple[str, ...]], jax.Array],
    images: jax.Array,
    numbers: Numbers,
    late: Late,
) -> jax.Array:
    """The views (n, V, …) that a function makes of images (N, S, S, C), their draws and operations.

    All views are given to it at once where they have the same operations.
    """
    if len(set(late.ops)) == 1:
        drawn = {
            name: jnp.reshape(numbers[name], (-1, *numbers[name].shape[2:])) for name in late.ops[0]
        }
        made = function(images.reshape(-1, *images.shape[2:]), drawn, late.ops[0])
        return made.reshape(*images.shape[:2], *made.shape[1:])
    views = [
        function(images[:, view], {name: numbers[name][:, view] for name in ops}, ops)
        for view, ops in enumerate(late.ops)
    ]
    return jnp.stack(views, axis=1)


def _applied(
    images: jax.Array,
    drawn: Numbers,
    ops: tuple[str, ...],
    late: Late,
    distort: Callable[..., jax.Array],
) -> jax.Array:
    """Applies operations to images (N, S, S, C), in their order."""
    numbers = {name: _unpacked(name, drawn[name]) for name in ops}
    for is_blur, names in itertools.groupby(ops, lambda name: name == "blur"):
        if is_blur:
            clipped = jnp.clip(images, 0.0, 1.0)
            images = gaussian_blur(clipped, numbers["blur"], radius=late.blur_radius)
        else:
            images = distort(images, numbers, [*names], brightness=late.brightness)
    return jnp.clip(images, 0.0, 1.0)


def to_float(images: jax.Array) -> jax.Array:
    """Converts uint8 images to float32 in [0, 1] and returns float images unchanged.

    Args:
      images: Images of any shape, uint8 or float.

    >>> to_float(jnp.array([0, 255], jnp.uint8)).tolist()
    [0.0, 1.0]
    """
    return images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images


def gaussian_blur(images: jax.Array, sigma_N: jax.Array, *, radius: int) -> jax.Array:
    """Applies a Gaussian blur with zero padding, with a sigma for each image.

    Blurring along one axis is multiplication by a banded matrix. So two small matrix products blur
    a batch in which every image has another sigma.

    Args:
      images: The images (N, S, S, C), float in [0, 1].
      sigma_N: The sigma (N,) of each image, float in pixels; 0 leaves the image unchanged.
      radius: The radius of the kernel, in pixels.

    Returns:
      The blurred images (N, S, S, C), clipped to [0, 1].

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
    """
    pixel = jnp.arange(images.shape[1])
    distance = (pixel[:, None] - pixel[None, :]).astype(images.dtype)
    taps = jnp.arange(-radius, radius + 1, dtype=images.dtype)
    exponent_N = -1.0 / (2.0 * jnp.maximum(sigma_N.astype(images.dtype), 1e-6) ** 2)
    total_N = jnp.sum(jnp.exp(exponent_N[:, None] * taps[None, :] ** 2), axis=1)
    weight_NSS = jnp.exp(exponent_N[:, None, None] * distance[None] ** 2) / total_N[:, None, None]
    band_NSS = jnp.where(jnp.abs(distance)[None] <= radius, weight_NSS, 0.0)
    precision = jax.lax.Precision.HIGHEST
    blurred = jnp.einsum("nij,njwc->niwc", band_NSS, images, precision=precision)
    blurred = jnp.einsum("nij,nhjc->nhic", band_NSS, blurred, precision=precision)
    return jnp.where(sigma_N[:, None, None, None] > 0, jnp.clip(blurred, 0.0, 1.0), images)


def crop_and_resize(images: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
    """Crops images and resizes the crops by bicubic interpolation, as `host.resize` does.

    A resize along one axis is multiplication by a banded matrix, as the blur is.

    Args:
      images: The images (N, H, W, C), uint8 or float in [0, 1].
      boxes: The crops (y, x, height, width) in pixels, (N, 4) int32.
      size: The height and the width S of the result, in pixels.

    Returns:
      The images (N, S, S, C), float32; they can leave the range [0, 1].
    """
    rows = _interpolation(boxes[:, 0], boxes[:, 2], images.shape[1], size)
    columns = _interpolation(boxes[:, 1], boxes[:, 3], images.shape[2], size)
    precision = jax.lax.Precision.HIGHEST
    made = jnp.einsum("nsh,nhwc->nswc", rows, to_float(images), precision=precision)
    return jnp.einsum("ntw,nswc->nstc", columns, made, precision=precision)


def _interpolation(start: jax.Array, length: jax.Array, total: int, size: int) -> jax.Array:
    """The matrices (N, S, total) that resize parts of lines by Keys' cubic with a = -0.5.

    As in TensorFlow, places lie on a grid of 1/1024 pixel, and pixels outside have no weight.
    """
    scale = length.astype(jnp.float32)[:, None] / size
    place = (jnp.arange(size, dtype=jnp.float32)[None] + 0.5) * scale - 0.5
    first = jnp.floor(place)
    away = jnp.round((place - first) * 1024.0) / 1024.0
    matrix = jnp.zeros((*place.shape, total), jnp.float32)
    weights = []
    for tap in range(-1, 3):
        x = jnp.abs(away - tap)
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        inside = (first + tap >= 0) & (first + tap < length[:, None])
        weights.append(jnp.where(inside, jnp.where(x <= 1.0, near, far), 0.0))
    whole = sum(weights)
    for tap, weight in zip(range(-1, 3), weights, strict=True):
        pixel = first.astype(jnp.int32) + tap + start[:, None]
        hit = pixel[..., None] == jnp.arange(total)[None, None]
        matrix = matrix + jnp.where(hit, (weight / whole)[..., None], 0.0)
    return matrix
