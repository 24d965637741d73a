"""Flips and the colour distortion of batches, on the device or on the host's own CPU.

Images are (N, S, S, C) float32. They may leave the range [0, 1] before the first operation, as
after a bicubic resize, and are clipped to it after each of them. Other images than those of C = 3,
red, green and blue, keep their saturation and their hue.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709), with the operations of the authors'
code, which are those of `tf.image`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from simclr_jax.augment.draws import Jitter

LUMA = (0.2989, 0.587, 0.114)  # The weights of red, green and blue; TensorFlow's.

Planes = tuple[jax.Array, ...]  # The channels, (…, S, S) each: red, green and blue, if 3.
_LEAST = 1e-20  # A range of colours that is as good as none.


def distort(
    images: jax.Array, drawn: Mapping[str, Any], ops: Sequence[str], *, brightness: str
) -> jax.Array:
    """Flips, jitters and makes grey the images of a batch, each where its draw says so.

    All images are distorted at the same time, with all four operations of the jitter at each place
    of their orders.

    Args:
      images: The images (N, S, S, C), float32.
      drawn: The random numbers of each operation by its name, from `draws.draw`.
      ops: The names of the operations, 'flip', 'jitter' and 'grey', in their order.
      brightness: The version of the brightness operation; see `brighten`.
    """
    one = partial(_distorted, ops=ops, brightness=brightness, jitter=_jittered)
    return jax.vmap(one)(images, {name: drawn[name] for name in ops})


def distort_one(
    image: jax.Array, drawn: Mapping[str, Any], ops: Sequence[str], *, brightness: str
) -> jax.Array:
    """Distorts an image (S, S, C) as `distort` does, by its own draws.

    Only those operations of the jitter are computed that its order names, which a CPU does fastest.
    """
    return _distorted(image, drawn, ops=ops, brightness=brightness, jitter=_jittered_in_turn)


def _distorted(
    image: jax.Array,
    drawn: Mapping[str, Any],
    *,
    ops: Sequence[str],
    brightness: str,
    jitter: Callable[[Planes, Jitter, list[Callable[[Planes], Planes]]], Planes],
) -> jax.Array:
    """An image (S, S, C) by its draws."""
    # A CPU computes with whole planes; where the channels of a pixel lie together it cannot.
    rgb: Planes = tuple(image[..., channel] for channel in range(image.shape[-1]))
    for name in ops:
        draw = drawn[name]
        if name == "jitter":
            rgb = jitter(rgb, draw, operations(draw, brightness, of_colours=len(rgb) == 3))
        else:
            changed = grey(rgb) if name == "grey" else flip(rgb)
            rgb = _where(draw, changed, rgb)
    return jnp.stack(rgb, axis=-1)


def operations(
    draw: Jitter, brightness: str, *, of_colours: bool
) -> list[Callable[[Planes], Planes]]:
    """The operations of a jitter by their numbers in its order; see `draws.Jitter`.

    Args:
      draw: The random numbers.
      brightness: The version of the brightness operation; see `brighten`.
      of_colours: Whether the images have colours, whose saturation and hue are changed.
    """
    return [
        lambda rgb: brighten(rgb, draw.brightness, version=brightness),
        lambda rgb: adjust_contrast(rgb, draw.contrast),
        lambda rgb: adjust_saturation(rgb, draw.saturation) if of_colours else _clipped(rgb),
        lambda rgb: adjust_hue(rgb, draw.hue) if of_colours else _clipped(rgb),
    ]


def _jittered_in_turn(
    rgb: Planes, draw: Jitter, operations: list[Callable[[Planes], Planes]]
) -> Planes:
    """The jitter of an image by the operations that its order names, one after the other."""

    def applied(rgb: Planes) -> Planes:
        for place in range(4):
            rgb = jax.lax.switch(draw.order[place], operations, rgb)
        return rgb

    return jax.lax.cond(draw.applied, applied, lambda rgb: rgb, rgb)


def _jittered(rgb: Planes, draw: Jitter, operations: list[Callable[[Planes], Planes]]) -> Planes:
    """The jitter of an image, by a choice of every operation's outcome at each place."""
    made = rgb
    for place in range(4):
        outcomes = [operation(made) for operation in operations]
        chosen = [draw.order[place] == number for number in range(4)]
        made = jax.tree.map(lambda *planes, chosen=chosen: jnp.select(chosen, [*planes]), *outcomes)
    return _where(draw.applied, made, rgb)


def flip(rgb: Planes) -> Planes:
    """Mirrors left and right."""
    return tuple(plane[:, ::-1] for plane in rgb)


def grey(rgb: Planes) -> Planes:
    """Replaces all three channels by the luma."""
    luma = LUMA[0] * rgb[0] + LUMA[1] * rgb[1] + LUMA[2] * rgb[2]
    return luma, luma, luma


def brighten(rgb: Planes, factor: jax.Array, *, version: str) -> Planes:
    """Changes the brightness: multiplies by the factor ('v2') or adds it ('v1')."""
    return _clipped(plane * factor if version == "v2" else plane + factor for plane in rgb)


def adjust_contrast(rgb: Planes, factor: jax.Array) -> Planes:
    """Multiplies the difference from the mean of each channel by a factor."""
    means = [jnp.mean(plane) for plane in rgb]
    pairs = zip(rgb, means, strict=True)
    return _clipped((plane - mean) * factor + mean for plane, mean in pairs)


def adjust_saturation(rgb: Planes, factor: jax.Array) -> Planes:
    """Multiplies the saturation in HSV by a factor and clips it to [0, 1].

    The largest channel V stays. The saturation is (V - m)/V with the smallest channel m, so that
    each difference from V changes by the factor, or by V/(V - m) where that is smaller.
    """
    value, chroma = _value_and_chroma(rgb)
    ratio = jnp.minimum(factor, value / jnp.maximum(chroma, _LEAST))
    return _clipped(value - (value - plane) * ratio for plane in rgb)


def adjust_hue(rgb: Planes, shift: jax.Array) -> Planes:
    """Turns the hue by a shift, a fraction of the colour circle from -1 to 1."""
    red, green, blue = rgb
    value, chroma = _value_and_chroma(rgb)
    inverse = 1.0 / jnp.maximum(chroma, _LEAST)
    hue = jnp.where(
        value == red,
        (green - blue) * inverse,
        jnp.where(value == green, (blue - red) * inverse + 2.0, (red - green) * inverse + 4.0),
    )
    # One of six parts of the circle is between two neighbours of red, yellow, green, cyan, blue and
    # magenta. A channel has its largest value up to one part from its own colour, and its smallest
    # one from two parts on.
    hue = hue + 6.0 * shift
    hue = hue - 6.0 * jnp.floor(hue * (1.0 / 6.0))
    away = 3.0 - jnp.abs(hue - 3.0), jnp.abs(hue - 2.0), jnp.abs(hue - 4.0)
    return _clipped(value - chroma * jnp.clip(parts - 1.0, 0.0, 1.0) for parts in away)


def _where(condition: jax.Array, chosen: Planes, otherwise: Planes) -> Planes:
    """One of two images by a bool scalar."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(chosen, otherwise, strict=True))


def _value_and_chroma(rgb: Planes) -> tuple[jax.Array, jax.Array]:
    """The largest of the three channels, and its distance from the smallest one."""
    red, green, blue = rgb
    value = jnp.maximum(jnp.maximum(red, green), blue)
    return value, value - jnp.minimum(jnp.minimum(red, green), blue)


def _clipped(planes: Iterable[jax.Array]) -> Planes:
    return tuple(jnp.clip(plane, 0.0, 1.0) for plane in planes)
