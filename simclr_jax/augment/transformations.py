"""Transformations to be told from features: what is done to an image is its label.

The label 0 is the image as it is. The laws, with the images in [0, 1]:

- colour: 1 with probability 0.2, as in pretraining; the image's luma in all channels.
- rotation: 0, 1, 2 or 3 with the same probability; a turn by 90° times the label, to the left.
- noise: 1 with probability 1/2; Gaussian noise of a given sigma is added to each channel of each
  pixel, and the sum is clipped to [0, 1].
- sobel: 1 with probability 1/2; the magnitude of Sobel's gradient of each channel, over 4 (a
  straight edge from black to white is 1), clipped to [0, 1].

Shapes: N images of S x S pixels.

Reference: Chen et al. 2020, section 4.2 and table 3 (arXiv 2002.05709), where 80 is the accuracy of
guessing 'colour'. The paper gives neither the noise's sigma nor the scale of the gradient; noise,
scale and probabilities are those of the operations in `augment.study`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.augment.draws import GREY_PROBABILITY
from simclr_jax.augment.study import NOISE_PROBABILITY, SOBEL_PROBABILITY, SOBEL_SCALE
from simclr_jax.errors import chosen

LUMA = (0.2989, 0.587, 0.114)  # The weights of red, green and blue; TensorFlow's.
# The stream of the first draw of labels. It is larger than that of any order of images.
_STREAM = 2**33


class Noise(NamedTuple):
    """What the noise of a batch depends on.

    Attributes:
      key: The key of a split's noise.
      place: The index (N,) int32 of each image, whose noise depends on it alone.
      sigma: The standard deviation of the noise.
    """

    key: jax.Array
    place: jax.Array
    sigma: float


def grey(images: jax.Array, labels: jax.Array, noise: Noise) -> jax.Array:
    """Makes the images with the label 1 grey; see `apply` for the arguments."""
    luma = jnp.sum(images * jnp.array(LUMA)[None, None, None, :], axis=-1, keepdims=True)
    return _where(labels == 1, jnp.broadcast_to(luma, images.shape), images)


def rotate(images: jax.Array, labels: jax.Array, noise: Noise) -> jax.Array:
    """Turns each image to the left, by 90° times its label; see `apply`."""
    turned = [jnp.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    return jnp.stack(turned, axis=1)[jnp.arange(len(images)), labels]


def add_noise(images: jax.Array, labels: jax.Array, noise: Noise) -> jax.Array:
    """Adds Gaussian noise to the images with the label 1; see `apply`."""

    def one(place: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(noise.key, place), images.shape[1:])

    noisy = images + noise.sigma * jax.vmap(one)(noise.place)
    return _where(labels == 1, jnp.clip(noisy, 0.0, 1.0), images)


def sobel(images: jax.Array, labels: jax.Array, noise: Noise) -> jax.Array:
    """Replaces the images with the label 1 by their edges; see `apply`."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    smooth_y = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smooth_x = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    across = smooth_y[:, :, 2:] - smooth_y[:, :, :-2]
    down = smooth_x[:, 2:] - smooth_x[:, :-2]
    edges = jnp.clip(jnp.sqrt(across**2 + down**2) / SOBEL_SCALE, 0.0, 1.0)
    return _where(labels == 1, edges, images)


def _where(chosen_N: jax.Array, changed: jax.Array, images: jax.Array) -> jax.Array:
    return jnp.where(chosen_N[:, None, None, None], changed, images)


class Transformation(NamedTuple):
    """A transformation.

    Attributes:
      shares: The probability of each label.
      function: The function that applies it; see `apply`.
    """

    shares: tuple[float, ...]
    function: Callable[[jax.Array, jax.Array, Noise], jax.Array]


TRANSFORMATIONS = {
    "colour": Transformation((1 - GREY_PROBABILITY, GREY_PROBABILITY), grey),
    "rotation": Transformation((0.25, 0.25, 0.25, 0.25), rotate),
    "noise": Transformation((1 - NOISE_PROBABILITY, NOISE_PROBABILITY), add_noise),
    "sobel": Transformation((1 - SOBEL_PROBABILITY, SOBEL_PROBABILITY), sobel),
}


def apply(name: str, images: jax.Array, labels: jax.Array, noise: Noise) -> jax.Array:
    """Applies a transformation, to each image as its label says.

    Args:
      name: The transformation, one of `TRANSFORMATIONS`.
      images: The images (N, S, S, 3), float32 in [0, 1].
      labels: The labels (N,) int32.
      noise: What the noise depends on, which 'noise' adds.

    Returns:
      The images (N, S, S, 3), float32 in [0, 1].
    """
    return chosen(TRANSFORMATIONS, "name", name).function(images, labels, noise)


def draw(name: str, n: int, *, seed: int, stream: int) -> np.ndarray:
    """The labels (n,) int32 of images, drawn by the law of a transformation.

    An image's label is a function of the other arguments and its place: it does not depend on n.

    Args:
      name: The transformation, one of `TRANSFORMATIONS`.
      n: The number of images.
      seed: The seed, from 0 and below 2³¹.
      stream: The number of the split, from 0, whose labels are drawn independently.
    """
    shares = chosen(TRANSFORMATIONS, "name", name).shares
    number = _STREAM + stream * len(TRANSFORMATIONS) + list(TRANSFORMATIONS).index(name)
    raw = np.random.Philox(key=np.array([seed, number], np.uint64)).random_raw(n)
    uniform = raw / 2.0**64
    return np.searchsorted(np.cumsum(shares)[:-1], uniform, side="right").astype(np.int32)
