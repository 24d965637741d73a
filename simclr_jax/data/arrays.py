"""Images as arrays of values: NumPy's .npy files, and images of any number of channels."""

from __future__ import annotations

import importlib
import io
import math
import re
import threading
from typing import Any

import numpy as np
from etils import epy
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from simclr_jax.data import depth
from simclr_jax.data.depth import ValueRange
from simclr_jax.errors import one_line

with epy.lazy_imports():
    import tensorflow as tf

MAX_VALUES = 2**29  # The largest number of values of an image of several channels.
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _FORMAT = 256, 257, 258, 277, 339  # Tags of TIFF.
_SIGNED = 2  # The format of signed integers in a TIFF.
# The header of a .npy file as NumPy writes it. Others are given to NumPy, which has them parsed by
# Python, and that fails at times in CPython 3.11 where two threads do it at a time.
_NPY = re.compile(
    rb"\{'descr': '([<>|=]\w+)', 'fortran_order': (True|False), 'shape': \(([\d, ]+)\), ?\}\s*"
)
_ONE_AT_A_TIME = threading.Lock()
_MODES = ("L", "LA", "RGB", "RGBA")  # The modes of Pillow whose bands are channels.


def values(data: bytes, kind: str | None) -> np.ndarray:
    """The values of an image as they are in its file.

    Args:
      data: The encoded image.
      kind: Its format, from `images.format_of`.

    Returns:
      The values (H, W) or (H, W, K) of bools, integers or floating-point numbers; of a .npy file of
      any order of axes.

    Raises:
      ValueError: It is damaged or no single image, or a package is missing that can read it.
    """
    if kind == "NPY":
        return npy(data)
    if kind == "TIFF":
        return tiff(data)
    if kind == "PNG":
        dtype = tf.uint16 if depth.is_deep_png(data) else tf.uint8
        return tf.io.decode_png(data, dtype=dtype).numpy()
    if kind == "JPEG":
        return tf.io.decode_jpeg(data).numpy()
    with Image.open(io.BytesIO(data), formats=(str(kind),)) as image:
        plain = image.mode in _MODES or image.mode == "F" or image.mode.startswith("I")
        return np.asarray(image if plain else image.convert("RGB"))


def npy(data: bytes) -> np.ndarray:
    """The array of a .npy file, which shares the memory of `data`. Nothing in it is run.

    Raises:
      ValueError: It is damaged, or no array of one image.
    """
    shape, dtype, fortran, begin = _npy_header(data)
    count = math.prod(shape)
    if len(data) < begin + count * dtype.itemsize:
        raise ValueError(f"truncated: {count} values of {dtype} are more than its bytes")
    flat = np.frombuffer(data, dtype, count, begin)
    return flat.reshape(shape, order="F" if fortran else "C")


def _npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """The shape, the dtype, whether columns come first, and where the values begin."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of .npy, whose names of fields no image has")
    begin = file.tell() + 2 * version[0] + int.from_bytes(file.read(2 * version[0]), "little")
    if usual := _NPY.fullmatch(data, file.tell(), begin):
        descr, columns, sides = (each.decode() for each in usual.groups())
        shape = tuple(int(side) for side in sides.split(",") if side.strip())
        dtype, fortran = np.dtype(descr), columns == "True"
    else:
        file.seek(0)
        np.lib.format.read_magic(file)
        with _ONE_AT_A_TIME:
            shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "buif":
        raise ValueError(f"an array of {dtype}, which are no values of an image")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {shape}; that of an image is (H, W) or (H, W, C)")
    return shape, dtype, fortran, begin


def tiff(data: bytes) -> np.ndarray:
    """The values (H, W) or (H, W, K) of a TIFF; pages of one size are its channels.

    Raises:
      ValueError: It is damaged or has further axes, or a package is missing that reads it.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise ValueError(
            f"a TIFF of {_in_words(data)}, which tifffile reads: pip install 'simclr_jax[tiff]'"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            axes, shape, size = series.axes, series.shape, math.prod(series.shape)
            if size > MAX_VALUES:
                raise ValueError(f"{size} values are more than {MAX_VALUES}")
            if not {"Y", "X"} <= set(axes) or len(axes) > 3:
                raise ValueError(f"axes {axes} of {shape}; an image has Y, X and its channels")
            found = series.asarray(maxworkers=1)
    except (MemoryError, ValueError) as error:
        if "imagecodecs" in str(error):  # It reads what is compressed in rarer ways.
            raise ValueError(f"{one_line(error, 100)}: pip install imagecodecs") from error
        raise
    except Exception as error:
        raise ValueError(f"damaged TIFF ({one_line(error, 100)})") from error
    return np.moveaxis(found, [axes.index("Y"), axes.index("X")], [0, 1])


def tiff_tags(data: bytes) -> ImageFileDirectory_v2:
    """The tags of the first image of a TIFF, which Pillow reads of others than it opens.

    Raises:
      ValueError: They are damaged.
    """
    try:
        file = io.BytesIO(data)
        head = file.read(8)
        tags = ImageFileDirectory_v2(head + (file.read(8) if head[2] == 43 else b""))
        file.seek(tags.next)
        tags.load(file)
        if not (tags[_WIDTH] and tags[_HEIGHT]):
            raise ValueError
    except Exception as error:
        raise ValueError("damaged TIFF") from error
    return tags


def is_misread(image: ImageFile) -> bool:
    """Whether Pillow reads one channel of an open TIFF of three or more, or -1 of 8 bits as 255."""
    signed = image.mode == "L" and _SIGNED in getattr(image, "tag_v2", {}).get(_FORMAT, ())
    return signed or (len(image.getbands()) == 1 and unread(image) > 1)


def unread(image: ImageFile) -> int:
    """The number of channels of an open TIFF that Pillow does not read; 0 of other images."""
    there = int(getattr(image, "tag_v2", {}).get(_SAMPLES, 1))
    return max(0, there - len(image.getbands()))


def described(data: bytes, kind: str | None) -> tuple[int, int]:
    """The numbers of channels and of bits per value, by the header of a .npy file or of a TIFF."""
    if kind == "NPY":
        shape, dtype, _, _ = _npy_header(data)
        few = min(shape[0], shape[-1]) if len(shape) == 3 else 1
        return few, 8 * dtype.itemsize
    tags = tiff_tags(data)
    return int(tags.get(_SAMPLES, 1)), max(tags.get(_BITS, (1,)))


def size(data: bytes, kind: str, channels: int) -> tuple[int, int]:
    """The width and the height in pixels, by the header of a .npy file or of a TIFF."""
    if kind == "NPY":
        shape = _npy_header(data)[0]
        height, width = shape[1:] if is_first(shape, channels) else shape[:2]
        return width, height
    tags = tiff_tags(data)
    return int(tags[_WIDTH]), int(tags[_HEIGHT])


def is_first(shape: tuple[int, ...], channels: int) -> bool:
    """Whether an array is taken to have its channels in the first axis, not in the last one.

    >>> is_first((5, 32, 32), 5), is_first((32, 32, 5), 5), is_first((32, 32), 5)
    (True, False, False)
    """
    last = (1, 3) if channels in (1, 3) else (channels,)  # Grey is repeated, or equal channels are.
    first = (1, 3) if channels == 3 else (channels,)
    return len(shape) == 3 and shape[-1] not in last and shape[0] in first


def arranged(found: np.ndarray, channels: int) -> np.ndarray:
    """The values (H, W, C) of an image.

    Args:
      found: Its values, (H, W), (H, W, K) or (K, H, W).
      channels: The number of channels C. Grey ones are repeated for 3, and 3 that are equal are
        taken as one.

    Raises:
      ValueError: The image has another number of channels.

    >>> arranged(np.zeros((4, 6)), 3).shape, arranged(np.zeros((5, 4, 6)), 5).shape
    ((4, 6, 3), (4, 6, 5))
    """
    if found.ndim == 2:
        found = found[..., None]
    if is_first(found.shape, channels):
        found = np.moveaxis(found, 0, -1)
    there = found.shape[-1]
    if there == channels:
        return found
    if channels == 3 and there == 1:
        return np.repeat(found, 3, axis=-1)
    if channels == 1 and there == 3 and (found[..., :1] == found[..., 1:]).all():
        return found[..., :1]
    raise wrong_channels(there, channels)


def wrong_channels(there: int, channels: int) -> ValueError:
    """The error for an image of another number of channels.

    >>> print(wrong_channels(5, 3))
    5 channels, where channels=3 takes 3, or 1 of grey images
    """
    grey = ", or 1 of grey images" if channels == 3 else ""
    colour = " that differ" if (there, channels) == (3, 1) else ""
    which = "channel" if there == 1 else "channels"
    return ValueError(f"{there} {which}{colour}, where channels={channels} takes {channels}{grey}")


def levels(
    data: bytes, kind: str | None, *, channels: int, value_range: ValueRange | None
) -> np.ndarray:
    """An image of any number of channels as 256 levels.

    Args:
      data: The encoded image.
      kind: Its format, from `images.format_of`.
      channels: The number of channels C.
      value_range: The values that become 0 and 255, of more than 8 bits or in a .npy file; see
        `images.transcode` for None.

    Returns:
      The levels (H, W, C), uint8.

    Raises:
      ValueError: It cannot be read, or has another number of channels.
    """
    return levels_of(values(data, kind), kind, channels, value_range)


def levels_of(
    found: np.ndarray, kind: str | None, channels: int, value_range: ValueRange | None
) -> np.ndarray:
    """The levels (H, W, C), uint8, of an image with the values `found`; see `levels`."""
    found = arranged(found, channels)
    if found.dtype == np.uint8 and (kind != "NPY" or value_range is None):
        return found
    if found.dtype == bool:
        return found * np.uint8(255)
    return depth.to_bytes(found, value_range)


def _in_words(data: bytes) -> str:
    """The channels and bits of a TIFF."""
    channels, bits = described(data, "TIFF")
    return f"{channels} channel{'s' * (channels != 1)} of {bits} bits"
