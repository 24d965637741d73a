"""A contact sheet: images with the crops on them, and their views, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epy

with epy.lazy_imports():
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    import numpy.typing as npt

# The colours of the numbered views, those of --c1 to --c6 in templates/base.html.
COLOURS = ("#0072b2", "#d55e00", "#00805c", "#b4528d", "#9a6a00", "#1f7fb8")
_CELL = 256  # The largest side in pixels of a picture on the sheet.
_SMALLEST = 128  # Smaller views are enlarged, by a whole number, up to this side or a little more.
_GAP, _HEAD, _FONT = 8, 20, 13  # In pixels.

Box = tuple[float, float, float, float]  # (x, y, width, height), as fractions of the image's sides.


class Row(NamedTuple):
    """An image and its views.

    Attributes:
      image: The image (H, W, 3), uint8.
      boxes: The crop of each view on it; None where there is none to show.
      thin: Whether each is drawn thin.
      views: The views (S, S, 3), uint8.
    """

    image: npt.NDArray[Any]
    boxes: Sequence[Box | None]
    thin: Sequence[bool]
    views: Sequence[npt.NDArray[Any]]


def sheet(rows: Sequence[Row], heads: Sequence[str]) -> Image.Image:
    """Draws a contact sheet with a row for each image: the image, then its views.

    Args:
      rows: The images, at least one, each with as many views as there are `heads`.
      heads: The words above the views.
    """
    cell = side_of(max(view.shape[0] for row in rows for view in row.views))
    step = cell + _GAP
    size = step * (1 + len(heads)) + _GAP, step * len(rows) + _GAP + _HEAD
    made = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(_FONT)
    for column, head in enumerate(["image", *heads]):
        draw.text((_GAP + column * step, 4), head, "black", font)
    for place, row in enumerate(rows):
        y = _GAP + _HEAD + place * step
        original = fitted(row.image, cell)
        made.paste(original, (_GAP, y))
        for number, box in reversed([*enumerate(row.boxes)]):
            if box is not None:
                _draw_box(draw, font, (_GAP, y), original.size, box, number, row.thin[number])
        for number, view in enumerate(row.views):
            made.paste(fitted(view, cell), (_GAP + (1 + number) * step, y))
    return made


def side_of(size: int) -> int:
    """The side of a view of some size on the sheet, in pixels.

    >>> side_of(8), side_of(32), side_of(224), side_of(512)
    (128, 128, 224, 256)
    """
    return min(_CELL, size * max(1, -(-_SMALLEST // size)))


def fitted(image: npt.NDArray[Any], side: int) -> Image.Image:
    """An image whose longer side has a length; a small one is enlarged so that pixels are squares.

    Args:
      image: The image (H, W, 3), uint8.
      side: The length in pixels.
    """
    found = Image.fromarray(np.ascontiguousarray(image))
    longer = max(found.size)
    if longer == side:
        return found
    how = Image.Resampling.NEAREST if longer < side else Image.Resampling.LANCZOS
    width, height = (max(1, round(length * side / longer)) for length in found.size)
    return found.resize((width, height), how)


def _draw_box(
    draw: ImageDraw.ImageDraw,
    font: Any,
    place: tuple[int, int],
    size: tuple[int, int],
    box: Box,
    number: int,
    thin: bool,
) -> None:
    """Draws the crop of a view, numbered from 0, on an image with a place and a size."""
    x, y, width, height = box
    left, top = place[0] + x * size[0], place[1] + y * size[1]
    right, bottom = left + width * size[0] - 1, top + height * size[1] - 1
    colour = COLOURS[number % len(COLOURS)]
    if not thin:
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline="white", width=4)
    inner = left + 1, top + 1, max(left + 1, right - 1), max(top + 1, bottom - 1)
    draw.rectangle(inner, outline=colour, width=1 if thin else 2)
    corner = left + 2 + 9 * (number % 4), top + 2
    draw.text(corner, str(number + 1), colour, font, stroke_width=2, stroke_fill="white")
