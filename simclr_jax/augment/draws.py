"""The random numbers of views, drawn before any operation is applied to an image.

A draw is a value that the host or the device can apply, and that tests can inspect: NumPy arrays,
with a row for each image. Each operation has a seed that `keys.fold` derives from the key of the
view. So omitting one operation does not change the others, nor does another order.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709). The distributions of the crop and of the
colour jitter are those of the authors' code. The laws of the study's operations are in `study`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from simclr_jax.augment import crops, policies, study
from simclr_jax.augment.keys import fold, of_images, uniform
from simclr_jax.errors import ArgumentError, chosen

BRIGHTNESS = ("v1", "v2")  # The versions of the brightness operation.
ON = ("device", "host")  # The places of the colour distortion and of the blur.
# The operations that can be applied to a whole batch at the end of the augmentation.
LATE = ("flip", "jitter", "grey", "blur")
OF_COLOURS = ("grey",)  # The operations that only images of red, green and blue have.

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
GREY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)  # The range of the blur's sigma, in pixels.

# The number that `keys.fold` adds to the key for each seed. Operations with the same number would
# be correlated.
_CROP, _GATES, _JITTER, _ORDER, _BLUR, _CUTOUT, _ROTATE, _NOISE, _FIELD, _SOBEL, _POLICY = range(11)
_SHARED, _EQUALIZE, _SOLARIZE, _MOTION = range(11, 15)

Numbers = Any  # Arrays of NumPy; where they are applied, tensors of TensorFlow or arrays of JAX.
Draw = dict[str, Any]  # The random numbers of one view of N images, by the name of the operation.


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
      colour_on: The place of flips, jitter and greyscale at the end of a view: 'host' (in tf.data)
        or 'device' (in the train step). What precedes an operation on the host is there, too.
      blur_on: The place of a blur among these operations; that of any other blur is the host.
      channels: The number of channels of the images. Of other images than those of 3, red, green
        and blue, there is no greyscale, and the jitter changes neither saturation nor hue.

    Raises:
      ArgumentError: A name is none of those, or a shared crop is not the first operation.
    """

    size: int
    ops: tuple[tuple[str, ...], ...]
    strength: float
    brightness: str
    crop_area: tuple[float, float]
    colour_on: str
    blur_on: str
    channels: int = 3

    def __post_init__(self) -> None:
        for ops in self.ops:
            for op in ops:
                chosen(_LAWS, "ops", op)
            if "shared_crop" in ops[1:]:
                raise ArgumentError("ops", ops, "'shared_crop' must be the first operation")
        chosen(dict.fromkeys(BRIGHTNESS), "brightness", self.brightness)
        chosen(dict.fromkeys(ON), "colour_on", self.colour_on)
        chosen(dict.fromkeys(ON), "blur_on", self.blur_on)

    @property
    def count(self) -> int:
        """The number of views of each image."""
        return len(self.ops)

    def applied(self, view: int) -> tuple[str, ...]:
        """The operations of a view that are applied; with strength 0 the colour ones are not."""
        off = ("jitter", "grey") if self.strength == 0 else OF_COLOURS if self.channels != 3 else ()
        return tuple(op for op in self.ops[view] if op not in off)

    @property
    def left_to_device(self) -> bool:
        """Whether the device applies operations at the end, and the host none before them."""
        places = [self.places(view) for view in range(self.count)]
        return any(each.device for each in places) and not any(each.host for each in places)

    def places(self, view: int) -> Places:
        """Where the operations of a view that are applied are, in their order."""
        ops = self.applied(view)
        place = {name: self.blur_on if name == "blur" else self.colour_on for name in LATE}
        device = len(ops)
        while device and place.get(ops[device - 1]) == "device":
            device -= 1
        late = device
        while late and ops[late - 1] in LATE:
            late -= 1
        return Places(ops[:late], ops[late:device], ops[device:])


class Places(NamedTuple):
    """Where the operations of a view are applied.

    Attributes:
      early: The operations that the host applies to each image, in their order.
      host: The ones after them that the host applies, to a batch where it has one of small images.
      device: The last ones, which the device applies.
    """

    early: tuple[str, ...]
    host: tuple[str, ...]
    device: tuple[str, ...]


class Jitter(NamedTuple):
    """Draws of the colour jitter.

    Attributes:
      applied: Whether each view is jittered, (N,) bool.
      brightness: The factor of the brightness, or with 'v1' its summand, (N,) float32.
      contrast: The factor of the contrast, (N,) float32.
      saturation: The factor of the saturation, (N,) float32.
      hue: The shift of the hue, as a fraction of the colour circle, (N,) float32.
      order: The order of the four operations, (N, 4) int32, permutations of their numbers: 0 for
        the brightness, 1 for the contrast, 2 for the saturation, 3 for the hue.
    """

    applied: Numbers
    brightness: Numbers
    contrast: Numbers
    saturation: Numbers
    hue: Numbers
    order: Numbers


@dataclass(frozen=True)
class Seeds:
    """The arguments of the functions in `OPS` that depend on the images.

    Attributes:
      keys: The keys (N, 2) int64 of the views, from `keys.image_keys`.
      height: The heights in pixels of what the operation is applied to, (N,) int.
      width: Its widths in pixels, (N,) int.
    """

    keys: np.ndarray
    height: np.ndarray
    width: np.ndarray

    @cached_property
    def gates(self) -> np.ndarray:
        """Three numbers (N, 3) from U(0, 1), float32: whether to flip, to jitter, to make grey."""
        return uniform(fold(self.keys, _GATES), 3)


def draw(
    keys: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    views: Views,
    view: int,
    names: Sequence[str] | None = None,
) -> Draw:
    """Draws the random numbers of one view of N images.

    Args:
      keys: The keys (N, 2) int64 of the views, from `keys.image_keys`.
      height: The heights of the images in pixels, (N,) int.
      width: The widths of the images in pixels, (N,) int.
      views: The settings of the augmentation.
      view: The number of the view, whose operations are drawn.
      names: The names of the operations that are drawn; None: all that are applied.

    Returns:
      The random numbers of each operation that is applied, by name, in their order.
    """
    applied = views.applied(view)
    names = applied if names is None else tuple(names)
    if not names:
        return {}
    size = np.full(len(keys), views.size)
    first, later = Seeds(keys, height, width), Seeds(keys, size, size)
    return {name: _LAWS[name](first if name == applied[0] else later, views) for name in names}


def _crop(seeds: Seeds, views: Views) -> np.ndarray:
    numbers = fold(seeds.keys, _CROP)
    return crops.boxes(seeds.height, seeds.width, numbers, area=views.crop_area)


def _shared_crop(seeds: Seeds, views: Views) -> np.ndarray:
    numbers = fold(of_images(seeds.keys), _SHARED)
    return crops.boxes(seeds.height, seeds.width, numbers, area=views.crop_area)


def _flip(seeds: Seeds, views: Views) -> np.ndarray:
    return seeds.gates[:, 0] < FLIP_PROBABILITY


def _jitter(seeds: Seeds, views: Views) -> Jitter:
    numbers, order = fold(seeds.keys, _JITTER), fold(seeds.keys, _ORDER)
    applied = seeds.gates[:, 1] < JITTER_PROBABILITY
    return jitter(applied, numbers, order, strength=views.strength, brightness=views.brightness)


def jitter(
    applied: np.ndarray,
    seeds: np.ndarray,
    order_seeds: np.ndarray,
    *,
    strength: float,
    brightness: str,
) -> Jitter:
    """Draws the brightness, contrast, saturation and hue of the colour jitter, and their order.

    At strength s the factors of brightness, contrast and saturation are from U(1 - 0.8s, 1 + 0.8s),
    with a lower end of at least 0, and the shift of the hue is from U(-0.2s, 0.2s). With 'v1' the
    summand of the brightness is from U(-0.8s, 0.8s).

    Args:
      applied: Whether each view is jittered, (N,) bool.
      seeds: The seeds (N, 2) int64 of the factors, from `keys.fold`.
      order_seeds: The seeds (N, 2) int64 of the order, from `keys.fold`.
      strength: The strength s of the colour distortion, above 0.
      brightness: The version of the brightness operation, one of `BRIGHTNESS`.

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
    """
    spread = 0.8 * strength
    numbers = uniform(seeds, 4, -1.0, 1.0)
    low = max(1.0 - spread, 0.0)
    factors = low + (numbers + 1.0) / 2.0 * (1.0 + spread - low)
    return Jitter(
        applied=applied,
        brightness=factors[:, 0] if brightness == "v2" else numbers[:, 0] * spread,
        contrast=factors[:, 1],
        saturation=factors[:, 2],
        hue=numbers[:, 3] * 0.2 * strength,
        order=np.argsort(uniform(order_seeds, 4), axis=1, kind="stable").astype(np.int32),
    )


def _grey(seeds: Seeds, views: Views) -> np.ndarray:
    return seeds.gates[:, 2] < GREY_PROBABILITY


def blur_sigma(seeds: np.ndarray) -> np.ndarray:
    """Draws the blur's sigma: with probability 1/2 from U(0.1, 2), otherwise 0 for no blur.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.

    Returns:
      The sigma in pixels, (N,) float32.

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
    """
    numbers = uniform(seeds, 2)
    low, high = BLUR_SIGMA
    sigma = low + numbers[:, 1] * (high - low)
    return np.where(numbers[:, 0] < BLUR_PROBABILITY, sigma, np.float32(0.0))


def blur_taps(size: int) -> int:
    """The length of the blur's kernel: about a tenth of the image's size, and odd.

    Args:
      size: The height and the width of the view, in pixels.

    >>> blur_taps(224), blur_taps(32)
    (23, 3)
    """
    return 2 * (size // 10 // 2) + 1


def _cutout(seeds: Seeds, views: Views) -> np.ndarray:
    return study.cutout_centres(fold(seeds.keys, _CUTOUT), views.size)


def _noise(seeds: Seeds, views: Views) -> study.Noise:
    return study.noise(fold(seeds.keys, _NOISE), fold(seeds.keys, _FIELD))


def _by(law: Callable[[np.ndarray], Any], number: int) -> Callable[[Seeds, Views], Any]:
    """The function that draws by a law which depends on seeds alone, those of a number."""
    return lambda seeds, views: law(fold(seeds.keys, number))


# The functions that draw the numbers of each operation. For each image they return a box (y, x,
# height, width) int32 in pixels, a bool, a `Jitter`, a bool and a sigma in pixels; then a centre
# (y, x) int32 in pixels, a number of turns, a `study.Noise`, a bool, and a box that all views of an
# image share; then a bool, a bool and a `study.Motion`.
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
