"""What the device does to a batch of images, inside the train step.

Shapes: N images, S pixels a side; batches hold V views of each of n images.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """Images that travelled as uint8, as float32 in [0, 1]; floats as they are."""
    return images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images


def gaussian_blur(images: jax.Array, sigma_N: jax.Array, *, radius: int) -> jax.Array:
    """Blurs image i with sigma_N[i] pixels, zero padding; where sigma is 0 it stays as it is.

    A blur along an axis is a banded matrix, so two small matrix products blur a batch in which
    every image has its own sigma.

    Args:
      images: Images (N, S, S, 3), floats in [0, 1].
      sigma_N: The sigma (N,) of each image, in pixels.
      radius: The radius of the kernel, in pixels.

    Returns:
      The blurred images (N, S, S, 3), clipped to [0, 1].
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
    """The views of a batch as the network sees them, those of an image side by side.

    Args:
      batch: "image" (n, V, S, S, 3), uint8 or float in [0, 1], and "blur_sigma" (n, V) in pixels.
      blur_radius: The radius of the blur's kernel in pixels; 0: the images are not to be blurred.

    Returns:
      Floats (n·V, S, S, 3) in [0, 1].
    """
    images = to_float(batch["image"])
    images = images.reshape(-1, *images.shape[2:])
    if blur_radius == 0:
        return images
    return gaussian_blur(images, batch["blur_sigma"].reshape(-1), radius=blur_radius)
