"""A map of images as a part of a page: a dot for each, whose picture is shown on hover and focus.

The macro `cloud` of templates/charts.html draws what `drawn` returns.
"""

import json
from collections.abc import Sequence
from typing import Any

import chex
import numpy as np

WIDTH, HEIGHT, EDGE = 640, 480, 14  # The size of the map, and the room around the dots.
NAMED = 20  # The largest number of classes that the legend names.


def drawn(
    places: np.ndarray,
    pictures: Sequence[np.ndarray],
    texts: Sequence[str],
    labels: np.ndarray,
    names: Sequence[str],
    *,
    note: str,
) -> dict[str, Any]:
    """What the macro `cloud` draws of images.

    Args:
      places: The places of N images, (N, 2).
      pictures: Their pictures, squares (S, S, 3) uint8 of one size.
      texts: What is said of each of them.
      labels: Their classes (N,) int; -1: none.
      names: The names of the classes.
      note: A sentence about the map.
    """
    chex.assert_shape(places, (len(pictures), 2))
    low, high = places.min(axis=0), places.max(axis=0)
    share = (places - low) / np.where(high > low, high - low, 1.0)
    room = np.array([WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE])
    at = (EDGE + share * room).round(1).tolist()
    colours = [colour(int(label), len(names)) for label in labels]
    sheet, columns = joined(pictures)
    side = len(pictures[0])
    kinds = sorted({int(label) for label in labels})
    legend = [(name_of(kind, names), colour(kind, len(names))) for kind in kinds]
    if len(legend) > NAMED:
        note += f" The colours of {len(legend)} classes are not listed; each dot names its own."
    return {
        "size": (WIDTH, HEIGHT),
        "radius": 4 if len(places) <= 400 else 3,
        "dots": [
            {"x": x, "y": y, "colour": fill} for (x, y), fill in zip(at, colours, strict=True)
        ],
        "data": json.dumps({"texts": [*texts], "columns": columns, "side": side}),
        "sheet": sheet,
        "side": side,
        "legend": legend if 1 < len(legend) <= NAMED else [],
        "summary": f"A map of {len(places)} images as dots. {note} The arrow keys go from dot to "
        "dot.",
        "note": note,
    }


def colour(label: int, classes: int) -> tuple[int, int] | None:
    """The hue of a class in degrees, and which of three tones it has; None for no class.

    >>> colour(-1, 10), colour(4, 10)
    (None, (144, 1))
    """
    # Neighbours in the circle of hues differ in tone, for those who see hues less well.
    return None if label < 0 else (360 * label // max(1, classes), label % 3)


def name_of(label: int, names: Sequence[str]) -> str:
    """The name of a class; its number where it has none.

    >>> name_of(1, ["cat", "dog"]), name_of(3, []), name_of(-1, [])
    ('dog', '3', 'no label')
    """
    if label < 0:
        return "no label"
    return names[label] if label < len(names) else str(label)


def joined(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """Pictures (S, S, 3) as one, row by row, and the number of its columns."""
    side, columns = len(pictures[0]), int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * side, columns * side, 3), np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = picture
    return sheet, columns
