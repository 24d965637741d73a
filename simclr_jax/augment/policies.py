"""The random numbers of policies of augmentation: AutoAugment and RandAugment.

A policy applies two operations, one after the other. An operation has a magnitude, which a level
from 0 to 10 names: from the low end of its range at 0 to the high end at 10, as in the authors'
code. So levels make posterize and solarize weaker, as the ranges of the paper say; implementations
differ in this. A turn, a shear or a shift goes either way with the same probability.

The policies are written out here since Keras' RandAugment counts the draws that it has made: a
view's numbers would depend on the views before it, and not on its key alone.

Reference: Cubuk et al. 2018 (arXiv 1805.09501), table 6 for the ranges and table 9 for the policy;
Cubuk et al. 2019 (arXiv 1909.13719). SimCLR compares with AutoAugment in table 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simclr_jax.augment.keys import uniform


class Range(NamedTuple):
    """The magnitudes of an operation, at the levels 0 and 10, and whether the sign is drawn."""

    low: float = 0.0
    high: float = 0.0
    signed: bool = False


# The operations and their ranges: a turn in degrees; the bits that are kept; the lowest value that
# is inverted, of 256; the factor of a difference from the grey, flat, black or smooth image; a
# shear as a tangent; and a shift as a fraction of the image's side (100 pixels of 224).
OPERATIONS = {
    "identity": Range(),
    "autocontrast": Range(),
    "equalize": Range(),
    "invert": Range(),
    "rotate": Range(0.0, 30.0, signed=True),
    "posterize": Range(4.0, 8.0),
    "solarize": Range(0.0, 256.0),
    "color": Range(0.1, 1.9),
    "contrast": Range(0.1, 1.9),
    "brightness": Range(0.1, 1.9),
    "sharpness": Range(0.1, 1.9),
    "shear_x": Range(0.0, 0.3, signed=True),
    "shear_y": Range(0.0, 0.3, signed=True),
    "translate_x": Range(0.0, 100 / 224, signed=True),
    "translate_y": Range(0.0, 100 / 224, signed=True),
}

# AutoAugment's 25 pairs for ImageNet: an operation, its probability and its level; then another.
# The level is 0 where the operation has no magnitude.
PAIRS = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
RANDAUGMENT_LEVEL = 9  # That of a ResNet-50 on ImageNet, with two operations.
# RandAugment's operations do not contain the inversion.
_DRAWN = tuple(name for name in OPERATIONS if name != "invert")


class Steps(NamedTuple):
    """Draws of a policy.

    Attributes:
      operation: The numbers (N, 2) int32 of the operations in `OPERATIONS`, in their order.
      magnitude: The magnitude (N, 2) float32 of each; see `OPERATIONS`.
    """

    operation: np.ndarray
    magnitude: np.ndarray


def magnitude(name: str, level: float) -> float:
    """The magnitude of an operation at a level from 0 to 10, without its sign.

    >>> magnitude("rotate", 9), magnitude("posterize", 5)
    (27.0, 6.0)
    """
    low, high, _ = OPERATIONS[name]
    return low + level / 10 * (high - low)


def autoaugment(seeds: np.ndarray) -> Steps:
    """Draws one of AutoAugment's pairs for ImageNet, and which of its two operations are applied.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.

    Reference: Cubuk et al. 2018, table 9 (arXiv 1805.09501).
    """
    numbers = uniform(seeds, 5)
    pair = (numbers[:, 0] * len(PAIRS)).astype(np.int32)
    steps = [[(_NUMBER[name], p, magnitude(name, level)) for name, p, level in of] for of in PAIRS]
    number, probability, size = np.moveaxis(np.array(steps, np.float32)[pair], -1, 0)
    applied = numbers[:, 1:3] < probability
    return _signed(np.where(applied, number, 0), size, numbers[:, 3:])


def randaugment(seeds: np.ndarray) -> Steps:
    """Draws two of RandAugment's 14 operations, each with the same probability, at level 9.

    Args:
      seeds: The seeds (N, 2) int64, from `keys.fold`.

    Reference: Cubuk et al. 2019, sections 3 and 4.3 (arXiv 1909.13719).
    """
    numbers = uniform(seeds, 4)
    drawn = (numbers[:, :2] * len(_DRAWN)).astype(np.int32)
    steps = np.array([(_NUMBER[name], magnitude(name, RANDAUGMENT_LEVEL)) for name in _DRAWN])
    number, size = np.moveaxis(steps[drawn], -1, 0)
    return _signed(number, size, numbers[:, 2:])


_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}


def _signed(operation: np.ndarray, size: np.ndarray, numbers: np.ndarray) -> Steps:
    """The steps with a sign drawn for those that have one, by numbers from U(0, 1)."""
    operation = operation.astype(np.int32)
    signed = np.array([span.signed for span in OPERATIONS.values()])[operation]
    sign = np.where(signed & (numbers < 0.5), -1.0, 1.0)
    return Steps(operation, (sign * size).astype(np.float32))


def with_policy(ops: tuple[str, ...], policy: str) -> tuple[str, ...]:
    """A list of operations with a policy after the crop and the flip that it begins with.

    >>> with_policy(("crop", "flip", "blur"), "autoaugment")
    ('crop', 'flip', 'autoaugment', 'blur')
    """
    place = next(
        (k for k, op in enumerate(ops) if op not in ("crop", "shared_crop", "flip")), len(ops)
    )
    return (*ops[:place], policy, *ops[place:])
