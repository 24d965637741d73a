"""Every random number of a view, drawn before anything is done to the image.

A draw is a value: it can be applied on the host or on the device, shown, and tested by itself.
Every operation takes its numbers from another seed, made by `fold` from the key of the view. So an
example is augmented the same way wherever and whenever it is loaded, and leaving an operation out
changes none of the others.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709); the crop's law and the jitter's rules
are those of the authors' code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

BRIGHTNESS = ("v1", "v2")

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
GREY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)  # The range of the blur's sigma, in pixels.
CROP_AREA = (0.08, 1.0)  # The paper's range of a crop's area, as fractions of the image.
CROP_ASPECT = (3 / 4, 4 / 3)  # The range of a crop's width over its height.

# The numbers that `fold` adds for each seed; two operations that shared one would be correlated.
_CROP, _GATES, _JITTER, _ORDER, _BLUR = range(5)

Draw = dict[str, Any]  # The random numbers of a view, by the name of the operation.


@dataclass(frozen=True)
class Views:
    """How the views of an image are made.

    Attributes:
      size: Height and width of a view, in pixels.
      count: The number of views of each image, drawn independently.
      ops: The names of the operations, from `OPS`; they are applied in the order of `OPS`. Without
        'crop' the whole image is resized.
      strength: The strength of the colour distortion; 0 turns jitter and grey off.
      brightness: 'v2' multiplies by the brightness factor, 'v1' adds it.
      crop_area: The smallest and the largest area of a crop, as fractions of the image.
      blur_on: Where the blur is applied: 'host' (tf.data) or 'device' (the train step).
    """

    size: int
    count: int
    ops: tuple[str, ...]
    strength: float
    brightness: str
    crop_area: tuple[float, float]
    blur_on: str


class Jitter(NamedTuple):
    """A draw of the colour jitter.

    Attributes:
      applied: A bool scalar that says whether the view is jittered at all.
      brightness: The factor (or, for 'v1', the summand) of the brightness.
      contrast: The factor of the contrast.
      saturation: The factor of the saturation.
      hue: The shift of the hue, as a fraction of the colour circle.
      order: A permutation (4,) int32 of the four, in the order of the attributes above.
    """

    applied: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    order: tf.Tensor


def image_key(seed: int, epoch: tf.Tensor, index: tf.Tensor, view: int) -> tf.Tensor:
    """The key (2,) int64 of one view of one example in one epoch.

    The four numbers are packed, not hashed: seed and epoch below 2³¹, index below 2⁴⁷, view below
    2⁸, so no two examples, epochs or views can collide.
    """
    high = tf.constant(seed * 2**32, tf.int64) + tf.cast(epoch, tf.int64)
    low = tf.cast(index, tf.int64) * 2**16 + view * 2**8
    return tf.stack([high, low])


def fold(key: tf.Tensor, number: int) -> tf.Tensor:
    """The seed (2,) int64 with that number (below 2⁸) of a key."""
    return key + tf.constant([0, number], tf.int64)


def uniform(seed: tf.Tensor, shape: tuple[int, ...], low: float, high: float) -> tf.Tensor:
    """Numbers from U(low, high), float32; the generator is named, since the default may change."""
    return tf.random.stateless_uniform(shape, seed, low, high, alg="philox")


class Seeds(NamedTuple):
    """What the laws draw from.

    Attributes:
      key: The key (2,) int64 of the view, from `image_key`.
      gates: Three numbers (3,) from U(0, 1): of the flip, the jitter and the greyscale.
      height: The height of the image in pixels, an int32 scalar.
      width: The width of the image in pixels, an int32 scalar.
    """

    key: tf.Tensor
    gates: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def draw(key: tf.Tensor, height: tf.Tensor, width: tf.Tensor, views: Views) -> Draw:
    """Draws a view of an image of height x width pixels.

    Args:
      key: The key (2,) int64 of the view, from `image_key`.
      height: The height of the image in pixels, an int32 scalar.
      width: The width of the image in pixels, an int32 scalar.
      views: How the views are made.

    Returns:
      The random numbers of each operation in views.ops, as `OPS` lists them.
    """
    seeds = Seeds(key, uniform(fold(key, _GATES), (3,), 0.0, 1.0), height, width)
    return {name: law(seeds, views) for name, law in OPS.items() if _is_on(name, views)}


def _is_on(name: str, views: Views) -> bool:
    """Whether the operation is asked for; strength 0 turns the colour operations off."""
    return name in views.ops and (views.strength > 0 or name not in ("jitter", "grey"))


def _crop(seeds: Seeds, views: Views) -> tf.Tensor:
    return crop_box(seeds.height, seeds.width, fold(seeds.key, _CROP), area=views.crop_area)


def crop_box(
    height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float]
) -> tf.Tensor:
    """A random crop (y, x, height, width) int32 for a square target.

    Area a fraction U(area) of the image, aspect U(3/4, 4/3), 100 attempts, then the whole image:
    the law of TensorFlow's sample_distorted_bounding_box.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([height, width, 3]),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.1,
        aspect_ratio_range=CROP_ASPECT,
        area_range=area,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], axis=0)


def _flip(seeds: Seeds, views: Views) -> tf.Tensor:
    return seeds.gates[0] < FLIP_PROBABILITY


def _jitter(seeds: Seeds, views: Views) -> Jitter:
    numbers, order = fold(seeds.key, _JITTER), fold(seeds.key, _ORDER)
    applied = seeds.gates[1] < JITTER_PROBABILITY
    return jitter(applied, numbers, order, strength=views.strength, brightness=views.brightness)


def jitter(
    applied: tf.Tensor, seed: tf.Tensor, order_seed: tf.Tensor, *, strength: float, brightness: str
) -> Jitter:
    """Brightness, contrast, saturation and hue, and their order.

    Ranges at strength s: 1 ± 0.8s (never below 0) for the first three, ± 0.2s of the colour circle
    for hue; 'v1' brightness adds U(-0.8s, 0.8s) instead.
    """
    spread = 0.8 * strength
    numbers = uniform(seed, (4,), -1.0, 1.0)
    low = tf.maximum(1.0 - spread, 0.0)
    factors = low + (numbers + 1.0) / 2.0 * (1.0 + spread - low)
    return Jitter(
        applied=applied,
        brightness=factors[0] if brightness == "v2" else numbers[0] * spread,
        contrast=factors[1],
        saturation=factors[2],
        hue=numbers[3] * 0.2 * strength,
        order=tf.argsort(uniform(order_seed, (4,), 0.0, 1.0)),
    )


def _grey(seeds: Seeds, views: Views) -> tf.Tensor:
    return seeds.gates[2] < GREY_PROBABILITY


def _blur(seeds: Seeds, views: Views) -> tf.Tensor:
    return blur_sigma(fold(seeds.key, _BLUR))


def blur_sigma(seed: tf.Tensor) -> tf.Tensor:
    """The blur's sigma in pixels: U(0.1, 2) with probability 1/2, else 0, which is no blur."""
    numbers = uniform(seed, (2,), 0.0, 1.0)
    low, high = BLUR_SIGMA
    return tf.where(numbers[0] < BLUR_PROBABILITY, low + numbers[1] * (high - low), 0.0)


def blur_taps(size: int) -> int:
    """Length of the blur's kernel for images of `size` pixels: a tenth of it, made odd."""
    return 2 * (size // 10 // 2) + 1


# The law of every operation, in the order in which they are applied. Their draws: a box
# (y, x, height, width) int32 in pixels, a bool, a `Jitter`, a bool, and a sigma in pixels.
OPS: dict[str, Callable[[Seeds, Views], Any]] = {
    "crop": _crop,
    "flip": _flip,
    "jitter": _jitter,
    "grey": _grey,
    "blur": _blur,
}
