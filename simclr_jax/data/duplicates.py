"""Images that a dataset has more than once: the same files, and images that look the same.

Two images are near duplicates if their difference hashes have `NEAR_BITS` different bits at most,
and their thumbnails correlate by `NEAR_CORRELATION` or more. The hash finds copies of another size,
quality or brightness; it alone would also take flat images, such as digits on paper, for the same.

Reference for the hash: Krawetz 2013, "Kind of Like That" (hackerfactor.com).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from PIL import Image

NEAR_BITS = 4  # The largest number of different bits, of 64.
NEAR_CORRELATION = 0.98  # The smallest correlation of the thumbnails.
THUMBNAIL = 16  # The side of the thumbnails in pixels.

Group = list[int]  # The rows of images that are the same, ascending; two or more.


def thumbnail(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """A thumbnail of an image and its difference hash.

    The image becomes grey with 9x8 pixels, and a bit of the hash says whether a pixel is lighter
    than the one to its left.

    Args:
      pixels: The image (H, W, C), uint8. Other channels than three are averaged.

    Returns:
      The thumbnail (16, 16) uint8, and the hash, from 0 and below 2⁶⁴.
    """
    if pixels.shape[-1] == 3:
        grey = Image.fromarray(pixels).convert("L")
    else:
        grey = Image.fromarray(np.rint(pixels.mean(axis=-1)).astype(np.uint8))
    small, tiny = (
        np.asarray(grey.resize(size, Image.Resampling.BOX))
        for size in ((THUMBNAIL, THUMBNAIL), (9, 8))
    )
    bits = (tiny[:, 1:] > tiny[:, :-1]).reshape(-1)
    return small, int.from_bytes(np.packbits(bits).tobytes(), "big")


def exact(digests: Sequence[bytes]) -> list[Group]:
    """The groups of the same content, the largest first.

    >>> exact([b"a", b"b", b"a", b"c", b"b", b"a"])
    [[0, 2, 5], [1, 4]]

    Args:
      digests: The digest of each image's content.
    """
    rows = defaultdict(list)
    for row, digest in enumerate(digests):
        rows[digest].append(row)
    return _largest_first(group for group in rows.values() if len(group) > 1)


def near(
    digests: Sequence[bytes], hashes: np.ndarray, thumbnails: np.ndarray, flat: np.ndarray
) -> list[Group]:
    """The groups of images that look the same and whose contents differ, the largest first.

    A group has the copies of its images as well. Two of its images may look the same because each
    looks like a third one. The time grows with the square of the number of images.

    Args:
      digests: The digest of each image's content.
      hashes: The hashes (n,) uint64, from `thumbnail`.
      thumbnails: The thumbnails (n, 16, 16) uint8.
      flat: Whether each image is left out, (n,) bool, as those of one colour.
    """
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest, row)
    rows = np.array([row for row in first.values() if not flat[row]], np.int64)
    hashes, shapes = hashes[rows], _normalized(thumbnails[rows])
    group = np.arange(len(rows))  # The number of the group of each.
    for row in range(len(rows) - 1):
        later = slice(row + 1, None)
        close = np.bitwise_count(hashes[later] ^ hashes[row]) <= NEAR_BITS
        found = row + 1 + np.flatnonzero(close & (group[later] != group[row]))
        same = found[shapes[found] @ shapes[row] >= NEAR_CORRELATION]
        if same.size:
            group[np.isin(group, group[same])] = group[row]
    number = {digests[row]: group[place] for place, row in enumerate(rows)}
    members = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest in number:
            members[number[digest]].append(row)
    return _largest_first(
        found for found in members.values() if len({digests[row] for row in found}) > 1
    )


def across(groups: Sequence[Group], border: int) -> list[Group]:
    """The groups with rows on both sides of a border: below it, and from it on."""
    return [group for group in groups if group[0] < border <= group[-1]]


def _normalized(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails as vectors (n, 256) float32 of mean 0 and length 1, whose product correlates."""
    flat = thumbnails.reshape(len(thumbnails), THUMBNAIL**2).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _largest_first(groups: object) -> list[Group]:
    return sorted(groups, key=lambda group: (-len(group), group))  # type: ignore[call-overload]
