"""Augmentations that the device applies to a batch, inside the train step.

Shapes: N images of S x S pixels. A batch has V views of each of n images, so N = n·V.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


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
      images: The images (N, S, S, 3), float in [0, 1].
      sigma_N: The sigma (N,) of each image, float in pixels; 0 leaves the image unchanged.
      radius: The radius of the kernel, in pixels.

    Returns:
      The blurred images (N, S, S, 3), clipped to [0, 1].

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


def views_of(batch: Mapping[str, jax.Array], *, blur_radius: int) -> jax.Array:
    """The views of a batch as the input of the network, with the views of an image in sequence.

    Args:
      batch: "image" (n, V, S, S, 3), uint8 or float in [0, 1], and "blur_sigma" (n, V), float in
        pixels.
      blur_radius: The radius of the blur's kernel in pixels, or 0 for no blur.

    Returns:
      The views (n·V, S, S, 3), float in [0, 1].
    """
    images = to_float(batch["image"])
    images = images.reshape(-1, *images.shape[2:])
    if blur_radius == 0:
        return images
    return gaussian_blur(images, batch["blur_sigma"].reshape(-1), radius=blur_radius)
