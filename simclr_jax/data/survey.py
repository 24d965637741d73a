"""A look at the images of a split: which can be read, their sizes and kinds, and what repeats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simclr_jax.data import alpha, arrays, checks, duplicates, headers, images, oddities
from simclr_jax.data.depth import ValueRange
from simclr_jax.data.source import Source, evenly_spaced

_AT_A_TIME = 128  # The number of images that are loaded at a time.
_THREADS = 8


class Seen(NamedTuple):
    """An image that was decoded.

    Attributes:
      number: The index of the image in its split.
      header: What its header says.
      width: The width in pixels.
      height: The height in pixels.
      length: The number of bytes of the encoded image.
      digest: A digest of them.
      thumbnail: A thumbnail, from `duplicates.thumbnail`.
      hash: Its difference hash.
      flat: Whether all its pixels have the same colour.
      grey: Whether it has colours, and no pixel has one.
      clipped: The share of its values that lie outside the range of black and white.
      not_opaque: The share of its pixels whose transparency is left out; None for an image that has
        neither an alpha channel nor a transparent colour, or whose alpha is one of the channels.
      lines: What is worth a line about it, from `oddities.Oddities`, which follows its name.
    """

    number: int
    header: headers.Header
    width: int
    height: int
    length: int
    digest: bytes
    thumbnail: np.ndarray
    hash: int
    flat: bool
    grey: bool
    clipped: float
    not_opaque: float | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What was found in a split.

    Attributes:
      source: The split.
      read: The indices of the images that were read, ascending.
      labels: Their labels, as the source loads them.
      seen: The images that could be decoded, by their index.
      broken: The reasons why the others could not be, by index.
    """

    source: Source
    read: list[int]
    labels: np.ndarray
    seen: list[Seen]
    broken: dict[int, str]


def scan(
    source: Source,
    count: int,
    *,
    value_range: ValueRange | None = None,
    channels: int = 3,
    on_read: Callable[[int], None] = lambda count: None,
) -> Survey:
    """Reads and decodes images of a split, evenly spaced.

    Args:
      source: The split.
      count: The largest number of images; 0: none.
      value_range: The values that are black and white in images of more than 8 bits.
      channels: The number of channels of the images.
      on_read: A function that is called with the number of images that have been read.

    Raises:
      HostError: The storage of the images is out of reach.
    """
    read = evenly_spaced(source, min(count, len(source))) if count and len(source) else []
    seen, broken, labels = [], {}, []
    odd, looks = oddities.Oddities(value_range, channels), _Looks(value_range, channels)
    with ThreadPoolExecutor(_THREADS) as pool:
        for begin in range(0, len(read), _AT_A_TIME):
            part = read[begin : begin + _AT_A_TIME]
            loaded, found = source.load(part)
            labels.append(found)
            looked_at = _looked_at(loaded, looks, pool)
            for index, data, one in zip(part, loaded, looked_at, strict=True):
                if isinstance(data, str) or isinstance(one, str):
                    broken[index] = str(one)
                else:
                    lines = tuple(odd.of(data))
                    seen.append(one._replace(number=index, lines=lines))
            on_read(begin + len(part))
    none = np.full(0, -1, np.int32)
    return Survey(source, read, np.concatenate(labels) if labels else none, seen, broken)


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many images of each split are read, of `count` in all: in proportion, one at least.

    >>> shares([50, 10], 100), shares([5000, 1000], 600), shares([5000, 10], 100)
    ([50, 10], [500, 100], [100, 1])
    """
    total = sum(sizes)
    if count >= total or not count:
        return [min(size, count) for size in sizes]
    return [min(size, max(1, round(count * size / total))) for size in sizes]


class _Looks(NamedTuple):
    """How images are looked at: see `scan` for both."""

    value_range: ValueRange | None
    channels: int

    def clipped(self, data: bytes) -> float:
        """The share of the values of an image that lie outside the range."""
        if self.value_range is None:
            return 0.0
        return oddities.clipped(oddities.values_of(data, *self), self.value_range)

    def not_opaque(self, data: bytes) -> float | None:
        """The share of the pixels of an image whose transparency is left out, if it has any."""
        kind = images.format_of(data)
        as_array = oddities.is_read_as_array(data, kind, *self)
        return None if as_array else alpha.not_opaque(data, kind)


def _looked_at(
    loaded: Sequence[bytes | str], looks: _Looks, pool: ThreadPoolExecutor
) -> list[Seen | str]:
    """Decodes images; the reason for one that cannot be."""
    plain = [
        row
        for row, data in enumerate(loaded)
        if isinstance(data, bytes) and images.is_plain(data, *looks)
    ]
    small = checks.decoded_together([loaded[row] for row in plain])  # type: ignore[misc]
    pixels = dict(zip(plain, small, strict=True))

    def one(row: int) -> Seen | str:
        data, known = loaded[row], pixels.get(row)
        if isinstance(data, str):
            return data
        try:
            if known is None:
                known = images.pixels(data, *looks)
            seen = _seen(data, arrays.arranged(known, looks.channels))
            return seen._replace(clipped=looks.clipped(data), not_opaque=looks.not_opaque(data))
        except ValueError as error:
            return str(error)

    return list(pool.map(one, range(len(loaded))))


def _seen(data: bytes, pixels: np.ndarray) -> Seen:
    """What is kept of an image: its content `data` and its pixels (H, W, C) uint8."""
    small, hashed = duplicates.thumbnail(pixels)
    height, width, channels = pixels.shape
    header = headers.of(data)
    if header.format == "TIFF" and channels not in images.ENCODED:  # Its pages are channels too.
        header = header._replace(channels=f"{channels} channels")
    return Seen(
        number=-1,
        header=header,
        width=width,
        height=height,
        length=len(data),
        digest=hashlib.blake2b(data, digest_size=16).digest(),
        thumbnail=small,
        hash=hashed,
        flat=int(small.max()) - int(small.min()) <= 1 and bool((pixels == pixels[0, 0]).all()),
        grey=channels == 3 and bool((pixels[..., :1] == pixels[..., 1:]).all()),
        clipped=0.0,
        not_opaque=None,
        lines=(),
    )
