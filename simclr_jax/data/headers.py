"""What the header of an encoded image says: its format, its channels and its bits."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import NamedTuple

from PIL import Image

from simclr_jax.data import arrays, depth, images

_PNG = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}  # Colour types.
# What the modes of Pillow mean; another one is called by its own name.
_MODES = {
    "1": "grey",
    "L": "grey",
    "I": "grey",
    "F": "grey",
    "P": "palette",
    "LA": "grey and alpha",
    "PA": "palette",
}
_NUMBERS = {1: "grey", 3: "RGB"}  # What numbers of channels mean; others are called by it.
_UNKNOWN = "unknown"


class Header(NamedTuple):
    """What the header of an image says.

    Attributes:
      format: The format, one of `images.FORMATS`.
      channels: The channels, in words, such as 'RGB', 'grey' or 'palette'.
      bits: The number of bits of a value; 0 where it is not known.
    """

    format: str
    channels: str
    bits: int


def of(data: bytes) -> Header:
    """The header of an encoded image, which `images.size` takes for one.

    >>> from simclr_jax.data.images import as_png
    >>> of(as_png(Image.new("L", (3, 2))))
    Header(format='PNG', channels='grey', bits=8)
    """
    kind = images.format_of(data) or _UNKNOWN
    if kind == "PNG":  # Pillow refuses a PNG with a large colour profile or text.
        return Header(kind, _PNG.get(data[25], _UNKNOWN), data[24])
    try:
        if kind == "NPY":
            return _of_array(data, kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of what is beside the pixels, as EXIF data.
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                if arrays.is_misread(image) or arrays.unread(image):
                    return _of_array(data, kind)
                mode = image.mode.partition(";")[0]
                bits = 1 if image.mode == "1" else depth.bits_of(image, data)
                return Header(kind, _MODES.get(mode, mode), bits)
    except Exception:  # TensorFlow or tifffile may decode what Pillow does not open.
        with contextlib.suppress(ValueError):
            if kind == "TIFF":
                return _of_array(data, kind)
        return Header(kind, _UNKNOWN, 0)


def _of_array(data: bytes, kind: str) -> Header:
    channels, bits = arrays.described(data, kind)
    return Header(kind, _NUMBERS.get(channels, f"{channels} channels"), bits)
