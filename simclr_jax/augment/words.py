"""What was drawn for a view, in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from simclr_jax.augment import study
from simclr_jax.augment.draws import Draw, Jitter, Views, blur_taps
from simclr_jax.augment.policies import OPERATIONS, Steps


class Seen(NamedTuple):
    """What an operation is applied to, which its words may need.

    Attributes:
      height: The number of rows of pixels.
      width: The number of columns of pixels.
      views: The settings of the augmentation.
    """

    height: int
    width: int
    views: Views


def in_words(draw: Draw, views: Views, height: int, width: int) -> dict[str, str]:
    """The words for each operation of a view, by name; none where it leaves the image as it is.

    Args:
      draw: The random numbers of the view of one image, from `of_row`.
      views: The settings of the augmentation.
      height: The height of the image in pixels.
      width: The width of the image in pixels.
    """
    original, view = Seen(height, width, views), Seen(views.size, views.size, views)
    return {
        name: WORDS[name](drawn, view if place else original)
        for place, (name, drawn) in enumerate(draw.items())
    }


def of_row(draw: Draw, row: int) -> Draw:
    """The draw of one image among those of several, with its operations in their order."""

    def one(drawn: Any) -> Any:
        if isinstance(drawn, tuple):
            return type(drawn)(*(array[row] for array in drawn))
        return drawn[row]

    return {name: one(drawn) for name, drawn in draw.items()}


def box_of(draw: Draw, height: int, width: int) -> tuple[float, float, float, float] | None:
    """The crop of a view on its image, (x, y, width, height) as fractions of the image's sides.

    Args:
      draw: The random numbers of the view of one image.
      height: The height of the image in pixels.
      width: The width of the image in pixels.

    Returns:
      The box; None where the image is not cropped, or is resized or changed before.
    """
    name = next(iter(draw), None)
    if name not in ("crop", "shared_crop"):
        return None
    y, x, rows, columns = map(float, draw[name])
    return x / width, y / height, columns / width, rows / height


def _crop(box: Any, seen: Seen) -> str:
    y, x, rows, columns = map(int, box)
    share = rows * columns / (seen.height * seen.width)
    return f"crop of {columns}x{rows} pixels at ({x}, {y}), {share:.0%} of the image"


def _jitter(drawn: Jitter, seen: Seen) -> str:
    if not drawn.applied:
        return ""
    added = seen.views.brightness == "v1"
    brightness = f"{drawn.brightness:+.2f}" if added else f"x {drawn.brightness:.2f}"
    steps = (
        f"brightness {brightness}",
        f"contrast x {drawn.contrast:.2f}",
        f"saturation x {drawn.saturation:.2f}",
        f"hue {360 * drawn.hue:+.0f}°",
    )
    order = [step for step in drawn.order if step < 2 or seen.views.channels == 3]
    return "jitter in this order: " + ", ".join(steps[step] for step in order)


def _blur(sigma: Any, seen: Seen) -> str:
    if sigma <= 0:
        return ""
    taps = blur_taps(seen.views.size)
    without = " (no effect: its kernel has one pixel)" if taps == 1 else ""
    return f"blur, sigma {sigma:.2f} pixels{without}"


def _cutout(centre: Any, seen: Seen) -> str:
    y, x = map(int, centre)
    side = study.cutout_side(seen.views.size)
    return f"grey square of {side} pixels around ({x}, {y})"


def _rotate(turns: Any, seen: Seen) -> str:
    return f"turned by {90 * int(turns)}° to the left" if turns else ""


def _noise(drawn: study.Noise, seen: Seen) -> str:
    return f"noise, sigma {study.NOISE_SIGMA:g}" if drawn.applied else ""


def _motion_blur(drawn: study.Motion, seen: Seen) -> str:
    return f"motion blur at {math.degrees(drawn.angle):.0f}°" if drawn.applied else ""


def _policy(drawn: Steps, seen: Seen) -> str:
    """The operations of a policy, in their order."""
    names = list(OPERATIONS)
    steps = [
        _step(names[int(number)], float(magnitude))
        for number, magnitude in zip(drawn.operation, drawn.magnitude, strict=True)
    ]
    return ", then ".join(step for step in steps if step)


def _step(name: str, magnitude: float) -> str:
    """One operation of a policy, with what its magnitude means; none for the identity."""
    if name == "identity":
        return ""
    if name in ("autocontrast", "equalize", "invert"):
        return name
    if name == "rotate":
        return f"rotate {magnitude:+.0f}° to the left"
    if name == "posterize":
        return f"posterize to {int(magnitude)} bits"
    if name == "solarize":
        return f"solarize from {int(magnitude)} of 256"
    if name.startswith("shear"):
        return f"shear along {name[-1]} by {magnitude:+.2f}"
    if name.startswith("translate"):
        return f"shift along {name[-1]} by {magnitude:+.0%} of the side"
    return f"{name} x {magnitude:.2f}"


def _gate(words: str) -> Callable[[Any, Seen], str]:
    """The function that gives the words where a bool was drawn true."""
    return lambda applied, seen: words if applied else ""


# The functions from one image's draw of an operation to its words, none where it has no effect.
WORDS: dict[str, Callable[[Any, Seen], str]] = {
    "crop": _crop,
    "shared_crop": _crop,
    "flip": _gate("mirrored"),
    "jitter": _jitter,
    "grey": _gate("made grey"),
    "blur": _blur,
    "cutout": _cutout,
    "rotate": _rotate,
    "noise": _noise,
    "sobel": _gate("edges (Sobel)"),
    "equalize": _gate("histograms equalized"),
    "solarize": _gate(f"solarized from {study.SOLARIZE_FROM:g} on"),
    "motion_blur": _motion_blur,
    "autoaugment": _policy,
    "randaugment": _policy,
}
