"""A confusion matrix as a part of a page.

The macro `matrix` of templates/charts.html draws what `drawn` returns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

NAMED = 20  # The largest number of classes that are named at the edges and counted in the cells.
_SIDE, _LARGEST = 420, 34  # The side of a matrix of many classes, and that of a cell of few.
_LETTERS = 14  # The largest number of letters of a name at an edge.
_UPRIGHT = 3  # The largest number of letters of names that are written side by side.
_OPACITY = 0.5  # That of a cell with all images of its row, on which dark text can be read.


def drawn(counts: np.ndarray, names: Sequence[str], *, note: str) -> dict[str, Any]:
    """What the macro `matrix` draws of a confusion matrix.

    Args:
      counts: The number (C, C) of images of a class (the row) that were taken for one (the column).
      names: The names of the C classes.
      note: A sentence about the matrix.
    """
    classes, few = len(counts), len(counts) <= NAMED
    cell = _LARGEST if few else _SIDE / classes
    letters = min(_LETTERS, max(map(len, names))) if few else 0
    slanted = letters > _UPRIGHT  # Names across that would run into each other.
    corner = 24 + 7 * letters, 20 + (6 * letters if slanted else 16 * few)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    cells = [
        {
            "x": round(corner[0] + column * cell, 2),
            "y": round(corner[1] + row * cell, 2),
            "opacity": round(0.06 + (_OPACITY - 0.06) * float(shares[row, column]), 3)
            if few
            else round(0.25 + 0.75 * float(shares[row, column]), 3),
            "count": int(counts[row, column]),
            "text": f"{names[row]} taken for {names[column]}: {counts[row, column]} of "
            f"{counts[row].sum()} ({shares[row, column]:.0%})",
        }
        for row, column in np.argwhere(counts).tolist()
    ]
    right = int(np.trace(counts))
    edge = range(classes) if few else range(0)
    side = round(classes * cell, 2)
    return {
        "size": (round(corner[0] + side + 4 + 6 * letters * slanted), round(corner[1] + side + 2)),
        "slanted": slanted,
        "corner": corner,
        "side": side,
        "cell": round(cell, 2),
        "cells": cells,
        "counted": few,
        "across": "taken for",
        "down": "class",
        "columns": [
            (round(corner[0] + (k + 0.5) * cell), corner[1] - 5, _short(names[k])) for k in edge
        ],
        "rows": [
            (corner[0] - 6, round(corner[1] + (k + 0.5) * cell + 4), _short(names[k])) for k in edge
        ],
        "summary": f"Confusion matrix of {classes} classes: {right} of {int(counts.sum())} images "
        "were taken for their own class. The table that follows has the pairs most often confused.",
        "note": note,
    }


def confused(counts: np.ndarray, names: Sequence[str], most: int) -> list[list[str]]:
    """The pairs of classes that were confused most often, as the rows of a table.

    >>> confused(np.array([[3, 2], [1, 4]]), ["cat", "dog"], 1)
    [['cat', 'dog', '2', '40%']]

    Args:
      counts: The number (C, C) of images of a class (the row) that were taken for one (the column).
      names: The names of the C classes.
      most: The largest number of pairs.
    """
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [
        [names[a], names[b], str(wrong[a, b]), f"{wrong[a, b] / counts[a].sum():.0%}"]
        for a, b in pairs
        if wrong[a, b]
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
