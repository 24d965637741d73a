"""The law of random crops.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709), with the distribution of the authors'
code, which is that of TensorFlow's `sample_distorted_bounding_box`.
"""

from __future__ import annotations

import numpy as np

from simclr_jax.augment import philox

AREA = (0.08, 1.0)  # The paper's range of a crop's area, as fractions of the image.
ASPECT = (3 / 4, 4 / 3)  # The range of a crop's width over its height.
COVERED = 0.1  # The smallest area of a crop that the authors' code accepts, as a fraction.
ATTEMPTS = 100

_FLOAT = np.float32
_AHEAD = 32  # How many numbers are computed at a time for each crop.


def boxes(
    height: np.ndarray, width: np.ndarray, seeds: np.ndarray, *, area: tuple[float, float]
) -> np.ndarray:
    """Draws a random crop of each image.

    The aspect ratio a is from U(3/4, 4/3). Then the height is uniform among those with which the
    crop is of an allowed area and inside the image, the width is a times the height, and the place
    is uniform, but for the last row and column, which TensorFlow's crops leave out. A crop that
    does not fit, or has less than a tenth of the image, is drawn again; after 100 attempts the crop
    is the full image. The numbers are those of `tf.image.stateless_sample_distorted_bounding_box`.

    Args:
      height: The heights of the images in pixels, (N,) int.
      width: The widths of the images in pixels, (N,) int.
      seeds: The seeds (N, 2) int64, from `keys.fold`.
      area: The smallest and the largest area, as fractions of the image.

    Returns:
      The boxes (y, x, height, width) in pixels, (N, 4) int32.
    """
    height, width = (np.asarray(side, np.int32) for side in (height, width))
    found = np.stack([np.zeros_like(height), np.zeros_like(height), height, width], axis=1)
    numbers, open_ = _Numbers(seeds), np.arange(len(seeds))
    for _ in range(ATTEMPTS):
        if not open_.size:
            break
        made, fits = _attempt(numbers, open_, height[open_], width[open_], area)
        found[open_[fits]] = made[fits]
        open_ = open_[~fits]
    return found


class _Numbers:
    """A sequence of random numbers for each crop, of which crops take different amounts.

    Args:
      seeds: The seeds (N, 2) int64.
    """

    def __init__(self, seeds: np.ndarray):
        self._start = philox.scramble(seeds)
        self._bits = philox.bits(*self._start, _AHEAD)
        self._next = np.zeros(len(seeds), np.int64)

    def bits(self, crops: np.ndarray) -> np.ndarray:
        """The next number of 32 random bits of some crops, (n,) uint32."""
        place = self._next[crops]
        if place.max(initial=0) >= self._bits.shape[1]:
            more = philox.bits(*self._start, _AHEAD, start=self._bits.shape[1])
            self._bits = np.concatenate([self._bits, more], axis=1)
        self._next[crops] += 1
        return self._bits[crops, place]

    def below(self, crops: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """The next whole numbers of some crops, uniform in [0, limit), (n,) int32."""
        limit = limit.astype(np.uint32)
        # Numbers below this one are passed over, since remainders would not be uniform with them.
        least = np.uint32(2**32 - 1) % limit + np.uint32(1)
        least = np.where(limit & (limit - np.uint32(1)), least, np.uint32(0))
        drawn = self.bits(crops)
        while (again := np.flatnonzero(drawn < least)).size:
            drawn[again] = self.bits(crops[again])
        return (drawn % limit).astype(np.int32)


def _attempt(
    numbers: _Numbers,
    crops: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    area: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Draws boxes (n, 4) int32, and whether each may be taken; float32 is TensorFlow's."""
    low, high = map(_FLOAT, ASPECT)
    aspect = philox.to_unit(numbers.bits(crops)) * (high - low) + low
    smallest, largest = (
        _FLOAT(share) * width.astype(_FLOAT) * height.astype(_FLOAT) for share in area
    )

    def width_of(rows: np.ndarray) -> np.ndarray:
        return np.rint(rows.astype(_FLOAT) * aspect).astype(np.int32)

    rows = np.rint(np.sqrt(smallest / aspect)).astype(np.int32)
    most = np.rint(np.sqrt(largest / aspect)).astype(np.int32)
    widest = ((width + 0.5 - float(_FLOAT(1e-7))) / aspect.astype(np.float64)).astype(np.int32)
    widest -= width_of(widest) > width
    most = np.minimum(np.where(width_of(most) > width, widest, most), height)
    free = np.flatnonzero(rows < most)
    rows = np.minimum(rows, most)
    rows[free] += numbers.below(crops[free], (most - rows)[free] + 1)
    # Rounding may have led out of the allowed areas.
    rows = rows + ((width_of(rows) * rows).astype(_FLOAT) < smallest)
    rows = rows - ((width_of(rows) * rows).astype(_FLOAT) > largest)
    columns = width_of(rows)
    size = (rows * columns).astype(_FLOAT)
    fits = (size >= smallest) & (size <= largest) & (columns <= width) & (rows <= height)
    fits &= (columns > 0) & (rows > 0)
    box = np.stack([np.zeros_like(rows), np.zeros_like(rows), rows, columns], axis=1)
    for axis, (side, whole) in enumerate(((rows, height), (columns, width))):
        free = np.flatnonzero(fits & (side < whole))
        box[free, axis] = numbers.below(crops[free], (whole - side)[free])
    covered = size / (height * width).astype(_FLOAT)
    return box, fits & (covered >= _FLOAT(COVERED))
