"""The random numbers of a view, drawn before any operation is applied to the image.

A draw is a value that the host or the device can apply, and that tests can inspect. Each operation
has a seed that `keys.fold` derives from the key of the view. So omitting one operation does not
change the others, nor does another order.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709). The distributions of the crop and of the
colour jitter are those of the authors' code. The laws of the study's operations are in `study`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from etils import epy

from simclr_jax.augment import policies, study
from simclr_jax.augment.keys import fold, of_image, uniform
from simclr_jax.errors import ArgumentError, chosen

with epy.lazy_imports():
    import tensorflow as tf

BRIGHTNESS = ("v1", "v2")  # The versions of the brightness operation.
BLUR_ON = ("device", "host")  # The places of the blur.

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
GREY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)  # The range of the blur's sigma, in pixels.
CROP_AREA = (0.08, 1.0)  # The paper's range of a crop's area, as fractions of the image.
CROP_ASPECT = (3 / 4, 4 / 3)  # The range of a crop's width over its height.

# The number that `keys.fold` adds to the key for each seed. Operations with the same number would
# be correlated.
_CROP, _GATES, _JITTER, _ORDER, _BLUR, _CUTOUT, _ROTATE, _NOISE, _FIELD, _SOBEL, _POLICY = range(11)
_SHARED, _EQUALIZE, _SOLARIZE, _MOTION = range(11, 15)

Draw = dict[str, Any]  # The random numbers of a view, by the name of the operation.


@dataclass(frozen=True)
class Views:
    """The settings of the augmentation.

    Attributes:
      size: The height and the width of a view, in pixels.
      ops: The names of the operations of each view, from `OPS` and `POLICIES`, in the order in
        which they are applied. Unless a crop is the first one, the full image is resized before it.
        'shared_crop' can only be the first one.
      strength: The strength of the colour distortion, at least 0. With 0 there is no jitter and no
        greyscale.
      brightness: The version of the brightness operation: 'v2' multiplies by a factor, 'v1' adds a
        summand.
      crop_area: The smallest and the largest area of a crop, as fractions of the image.
      blur_on: The place of a blur that is the last operation of a view: 'host' (in tf.data) or
        'device' (in the train step). Another blur is on the host.

    Raises:
      ArgumentError: A name is none of those, or a shared crop is not the first operation.
    """

    size: int
    ops: tuple[tuple[str, ...], ...]
    strength: float
    brightness: str
    crop_area: tuple[float, float]
    blur_on: str

    def __post_init__(self) -> None:
        for ops in self.ops:
            for op in ops:
                chosen(_LAWS, "ops", op)
            if "shared_crop" in ops[1:]:
                raise ArgumentError("ops", ops, "'shared_crop' must be the first operation")
        chosen(dict.fromkeys(BRIGHTNESS), "brightness", self.brightness)
        chosen(dict.fromkeys(BLUR_ON), "blur_on", self.blur_on)

    @property
    def count(self) -> int:
        """The number of views of each image."""
        return len(self.ops)

    def applied(self, view: int) -> tuple[str, ...]:
        """The operations of a view that are applied; with strength 0 the colour ones are not."""
        off = () if self.strength > 0 else ("jitter", "grey")
        return tuple(op for op in self.ops[view] if op not in off)

    def leaves_blur(self, applied: Sequence[str]) -> bool:
        """Whether the last of the operations that are applied is a blur that the device applies."""
        return self.blur_on == "device" and applied[-1:] == ("blur",)

    @property
    def leave_blur(self) -> bool:
        """Whether the device applies the blur of any view."""
        return any(self.leaves_blur(self.applied(view)) for view in range(self.count))


class Jitter(NamedTuple):
    """A draw of the colour jitter.

    Attributes:
      applied: Whether the view is jittered, a bool scalar.
      brightness: The factor of the brightness, or with 'v1' its summand.
      contrast: The factor of the contrast.
      saturation: The factor of the saturation.
      hue: The shift of the hue, as a fraction of the colour circle.
      order: The order of the four operations, a permutation (4,) int32 of their numbers: 0 for the
        brightness, 1 for the contrast, 2 for the saturation, 3 for the hue.
    """

    applied: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    order: tf.Tensor


class Seeds(NamedTuple):
    """The arguments of the functions in `OPS` that depend on the image.

    Attributes:
      key: The key (2,) int64 of the view, from `keys.image_key`.
      gates: Three numbers (3,) from U(0, 1), float32, that decide whether the view is flipped,
        jittered and made grey.
      height: The height in pixels of the image that the operation is applied to, an int32 scalar.
      width: Its width in pixels, an int32 scalar.
    """

    key: tf.Tensor
    gates: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def draw(key: tf.Tensor, height: tf.Tensor, width: tf.Tensor, views: Views, view: int) -> Draw:
    """Draws the random numbers of one view of an image.

    Args:
      key: The key (2,) int64 of the view, from `keys.image_key`.
      height: The height of the image in pixels, an int32 scalar.
      width: The width of the image in pixels, an int32 scalar.
      views: The settings of the augmentation.
      view: The number of the view, whose operations are drawn.

    Returns:
      The random numbers of each operation that is applied, by name, in their order.
    """
    size = tf.constant(views.size)
    gates = uniform(fold(key, _GATES), (3,), 0.0, 1.0)
    first, later = Seeds(key, gates, height, width), Seeds(key, gates, size, size)
    names = views.applied(view)
    return {name: _LAWS[name](first if name == names[0] else later, views) for name in names}


def _crop(seeds: Seeds, views: Views) -> tf.Tensor:
    return crop_box(seeds.height, seeds.width, fold(seeds.key, _CROP), area=views.crop_area)


def _shared_crop(seeds: Seeds, views: Views) -> tf.Tensor:
    seed = fold(of_image(seeds.key), _SHARED)
    return crop_box(seeds.height, seeds.width, seed, area=views.crop_area)


def crop_box(
    height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float]
) -> tf.Tensor:
    """Draws a random crop.

    The area is drawn as a fraction U(area) of the image's and the aspect ratio from U(3/4, 4/3), as
    TensorFlow's `sample_distorted_bounding_box` does. If 100 attempts do not fit into the image,
    the crop is the full image.

    Args:
      height: The height of the image in pixels, an int32 scalar.
      width: The width of the image in pixels, an int32 scalar.
      seed: The seed (2,) int64, from `keys.fold`.
      area: The smallest and the largest area, as fractions of the image.

    Returns:
      The box (y, x, height, width) in pixels, (4,) int32.

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
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
    """Draws the brightness, contrast, saturation and hue of the colour jitter, and their order.

    At strength s the factors of brightness, contrast and saturation are from U(1 - 0.8s, 1 + 0.8s),
    with a lower end of at least 0, and the shift of the hue is from U(-0.2s, 0.2s). With 'v1' the
    summand of the brightness is from U(-0.8s, 0.8s).

    Args:
      applied: Whether the view is jittered, a bool scalar.
      seed: The seed (2,) int64 of the factors, from `keys.fold`.
      order_seed: The seed (2,) int64 of the order, from `keys.fold`.
      strength: The strength s of the colour distortion, above 0.
      brightness: The version of the brightness operation, one of `BRIGHTNESS`.

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
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


def blur_sigma(seed: tf.Tensor) -> tf.Tensor:
    """Draws the blur's sigma: with probability 1/2 from U(0.1, 2), otherwise 0 for no blur.

    Args:
      seed: The seed (2,) int64, from `keys.fold`.

    Returns:
      The sigma in pixels, a float32 scalar.

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
    """
    numbers = uniform(seed, (2,), 0.0, 1.0)
    low, high = BLUR_SIGMA
    return tf.where(numbers[0] < BLUR_PROBABILITY, low + numbers[1] * (high - low), 0.0)


def blur_taps(size: int) -> int:
    """The length of the blur's kernel: about a tenth of the image's size, and odd.

    Args:
      size: The height and the width of the view, in pixels.

    >>> blur_taps(224), blur_taps(32)
    (23, 3)
    """
    return 2 * (size // 10 // 2) + 1


def _cutout(seeds: Seeds, views: Views) -> tf.Tensor:
    return study.cutout_centre(fold(seeds.key, _CUTOUT), views.size)


def _noise(seeds: Seeds, views: Views) -> study.Noise:
    return study.noise(fold(seeds.key, _NOISE), fold(seeds.key, _FIELD))


def _by(law: Callable[[tf.Tensor], Any], number: int) -> Callable[[Seeds, Views], Any]:
    """The function that draws by a law which depends on a seed alone, the one of a number."""
    return lambda seeds, views: law(fold(seeds.key, number))


# The functions that draw the numbers of each operation. They return a box (y, x, height, width)
# int32 in pixels, a bool, a `Jitter`, a bool and a sigma in pixels; then a centre (y, x) int32 in
# pixels, a number of turns, a `study.Noise`, a bool, and a box that all views of an image share;
# then a bool, a bool and a `study.Motion`.
OPS: dict[str, Callable[[Seeds, Views], Any]] = {
    "crop": _crop,
    "flip": _flip,
    "jitter": _jitter,
    "grey": _grey,
    "blur": _by(blur_sigma, _BLUR),
    "cutout": _cutout,
    "rotate": _by(study.quarter_turns, _ROTATE),
    "noise": _noise,
    "sobel": _by(study.sobel, _SOBEL),
    "shared_crop": _shared_crop,
    "equalize": _by(study.equalize, _EQUALIZE),
    "solarize": _by(study.solarize, _SOLARIZE),
    "motion_blur": _by(study.motion, _MOTION),
}
# The functions that draw the numbers of each policy, a `policies.Steps`. In a view a policy is one
# of its operations.
POLICIES: dict[str, Callable[[Seeds, Views], Any]] = {
    "autoaugment": _by(policies.autoaugment, _POLICY),
    "randaugment": _by(policies.randaugment, _POLICY),
}
_LAWS = OPS | POLICIES


def one_a_view(
    ops: tuple[str, ...] | tuple[tuple[str, ...], ...], count: int
) -> tuple[tuple[str, ...], ...]:
    """The list of operations of each view, from one list for all of them or from one list a view.

    >>> one_a_view(("crop", "flip"), 2)
    (('crop', 'flip'), ('crop', 'flip'))
    >>> one_a_view((("crop",), ("crop", "grey")), 2)
    (('crop',), ('crop', 'grey'))

    Args:
      ops: The names of operations, or a list of them for each view.
      count: The number of views, which matters for one list.
    """
    lists = tuple(each for each in ops if not isinstance(each, str))
    names = tuple(each for each in ops if isinstance(each, str))
    return lists or (names,) * count


def with_policy(ops: tuple[str, ...], policy: str) -> tuple[str, ...]:
    """A list of operations with a policy after the crop and the flip that it begins with.

    >>> with_policy(("crop", "flip", "blur"), "autoaugment")
    ('crop', 'flip', 'autoaugment', 'blur')
    """
    place = next(
        (k for k, op in enumerate(ops) if op not in ("crop", "shared_crop", "flip")), len(ops)
    )
    return (*ops[:place], policy, *ops[place:])
