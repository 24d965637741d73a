"""What is worth a line about images that can be read."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from simclr_jax.data import alpha, arrays, depth, images

_DARK = 2**14  # The largest value up to which images of 16 bits are nearly black.
_DEEP_SAMPLE = 4  # The number of such images, one after the other, that are worth a line.
# The number of images whose values are compared with a range, that are read as arrays, or whose
# alpha channel is looked at.
_SAMPLE = 64
_CHANNELS_SAMPLE = 8  # The number of arrays of several channels that are worth a line together.
_FEW = 2  # The largest difference of the levels of a channel that tells next to nothing.


class Oddities:
    """What is worth a line about images that can be read, each said once.

    Args:
      value_range: The values that are black and white, or None if they are not named.
      channels: The number of channels.
    """

    def __init__(self, value_range: depth.ValueRange | None, channels: int = 3):
        self._range, self._channels = value_range, channels
        self._look_for_dark = value_range is None
        self._left_to_compare = 0 if value_range is None else _SAMPLE
        self._arrays_left = self._alphas_left = _SAMPLE
        self._look_for_frames = self._look_for_narrowed = self._look_for_first = True
        self._look_for_unread = True
        self._look_for_type = value_range is None
        self._deep = self._brightest = 0
        self._differences: list[np.ndarray] = []  # Those of the levels of each channel, (C,) each.

    def of(self, data: bytes) -> Iterator[str]:
        """Yields lines about an image, which follow its name.

        Args:
          data: The encoded image, of one of `images.FORMATS`.
        """
        kind = images.format_of(data)
        as_array = is_read_as_array(data, kind, self._range, self._channels)
        if not as_array:
            yield from self._of_alpha(data, kind)
        if kind not in (None, "JPEG", "PNG") and not as_array:
            with Image.open(io.BytesIO(data), formats=(str(kind),)) as image:
                narrowed, floats = depth.narrowed(image, data), image.mode == "F"
                white_is_0 = depth.white_is_0(image)
                frames = self._look_for_frames and getattr(image, "is_animated", False)
                unread = self._look_for_unread and _unread_in_words(image)
            if frames:
                self._look_for_frames = False
                yield "has several frames or pages; of such files the first one is used"
            if narrowed and self._look_for_narrowed:
                self._look_for_narrowed = False
                yield f"is {narrowed}: nearly black where fewer are used"
            if unread:
                self._look_for_unread = False
                yield unread
            if self._range is None and (floats or white_is_0):
                return
        look = self._look_for_dark or self._left_to_compare > 0
        if as_array:
            look = self._arrays_left > 0
            self._arrays_left -= 1
        values = values_of(data, self._range, self._channels) if look else None
        if values is None:
            return
        if as_array and self._look_for_type and values.dtype not in (bool, np.uint8):
            self._look_for_type = False
            yield (
                f"has values of {values.dtype}: 0 is taken for black and "
                f"{depth.white_of(values.dtype)} for white, unless value_range says otherwise"
            )
        yield from self._of_values(values)
        if as_array:
            yield from self._of_channels(values, kind)

    def _of_alpha(self, data: bytes, kind: str | None) -> Iterator[str]:
        """Yields a line about the first image with pixels that are not opaque."""
        share = alpha.not_opaque(data, kind) if self._alphas_left > 0 else None
        if share is None:
            return
        self._alphas_left -= 1
        if share:
            self._alphas_left = 0
            yield (
                f"is transparent in {depth.percent(share)} of its pixels, in whole or in part: "
                "that is left out, and the colours that they have in the file are seen; that is "
                "said of the first such image alone"
            )

    def _of_values(self, values: np.ndarray) -> Iterator[str]:
        """Yields lines about the values of an image of more than 8 bits, or of an array."""
        if self._look_for_first and arrays.is_first(values.shape, self._channels):
            self._look_for_first = False
            yield f"is an array of shape {values.shape}: its channels are taken to come first"
        if self._left_to_compare > 0:
            self._left_to_compare -= 1
            if share := clipped(values, self._range):
                self._left_to_compare = 0
                yield (
                    f"has {depth.percent(share)} of its values outside "
                    f"value_range={self._range}: they become black or white, NaN black; that is "
                    "said of the first such image alone"
                )
        if not self._look_for_dark or values.dtype.kind not in "iu" or values.itemsize == 1:
            return
        self._deep += 1
        self._brightest = max(self._brightest, int(values.max()))
        if self._brightest > _DARK:
            self._look_for_dark = False
        elif self._deep == _DEEP_SAMPLE:
            self._look_for_dark = False
            bits = max(8, self._brightest.bit_length())
            yield (
                f"is the last of {self._deep} 16-bit images whose values are at most "
                f"{self._brightest}: nearly black, as 65535 is white; value_range can say "
                f"which values are black and white, as value_range=(0,{2**bits - 1}) of {bits} bits"
            )

    def _of_channels(self, values: np.ndarray, kind: str | None) -> Iterator[str]:
        """Yields a line about channels with hardly any levels, in all of the first arrays."""
        if self._channels == 1 or len(self._differences) == _CHANNELS_SAMPLE:
            return
        levels = arrays.levels_of(values, kind, self._channels, self._range)
        self._differences.append(np.ptp(levels, axis=(0, 1)))
        poor = np.flatnonzero(np.max(self._differences, axis=0) <= _FEW)
        if len(self._differences) == _CHANNELS_SAMPLE and len(poor):
            yield (
                f"is the last of {_CHANNELS_SAMPLE} images that have at most {_FEW + 1} of 256 "
                f"levels in the channels {', '.join(map(str, poor))} of 0 to {self._channels - 1}: "
                "black and white are the same values in all channels, which need a common scale"
            )


def _unread_in_words(image: ImageFile) -> str:
    """How many channels an open image has of which some are not read; '' where all are."""
    unread = arrays.unread(image)
    if not unread:
        return ""
    bands = image.getbands()
    there, colours = len(bands) + unread, sum(band not in ("A", "a") for band in bands)
    which = "the first one is" if colours == 1 else f"the first {colours} are"
    return (
        f"has {there} channels, of which {which} used; channels={there} uses all of them; that is "
        "said of the first such image alone"
    )


def is_read_as_array(
    data: bytes, kind: str | None, value_range: depth.ValueRange | None, channels: int
) -> bool:
    """Whether an image is read by `arrays`, not by Pillow or TensorFlow as PNG or JPEG."""
    return kind is not None and (
        channels not in images.ENCODED or images.is_array(data, kind, value_range)
    )


def values_of(
    data: bytes, value_range: depth.ValueRange | None, channels: int
) -> np.ndarray | None:
    """The values of an image, if a range of them applies to it; None for one of 8 bits.

    Args:
      data: The encoded image.
      value_range: The values that are black and white. With a range the values are the file's own;
        without, they are those that Pillow scales to 65,535.
      channels: The number of channels.
    """
    kind = images.format_of(data)
    if is_read_as_array(data, kind, value_range, channels):
        found = arrays.values(data, kind)
        return None if found.dtype in (bool, np.uint8) and kind != "NPY" else found
    values = depth.values(data, kind)
    if values is None or value_range is None or kind == "PNG":
        return values
    with Image.open(io.BytesIO(data), formats=(str(kind),)) as image:
        unit = depth.unit(image, data)
    return values if unit == 1 else values * unit


def clipped(values: np.ndarray | None, value_range: depth.ValueRange | None) -> float:
    """The share of some values that lie outside a range, 0 to 1; 0 without values or a range.

    NaN lies outside of every range.

    >>> clipped(np.array([0, 5, np.nan, 12]), (5, 10))
    0.75
    """
    if values is None or value_range is None:
        return 0.0
    low, high = sorted(value_range)
    return float((~((values >= low) & (values <= high))).mean())
