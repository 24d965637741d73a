"""Images to look at: those of an index, and others that are compared with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from simclr_jax.config import sources
from simclr_jax.data import images
from simclr_jax.data.depth import ValueRange
from simclr_jax.data.folder import Folder
from simclr_jax.errors import UserError
from simclr_jax.evals import parquet
from simclr_jax.evals.index import Index
from simclr_jax.evals.task import Task
from simclr_jax.pages import html

SIDE = 128  # The largest side in pixels of a picture.
_AT_A_TIME = 64  # The number of images that are decoded at a time.


class Query(NamedTuple):
    """An image that is compared with those of an index.

    Attributes:
      name: The path as the user wrote it.
      path: The absolute path.
      picture: The image (H, W, 3) uint8, of `SIDE` pixels at most.
    """

    name: str
    path: str
    picture: np.ndarray


def paths(names: Iterable[str]) -> list[str]:
    """The absolute paths of images.

    Raises:
      UserError: There is no such file on a local disk.
    """
    found = [os.path.abspath(os.path.expanduser(name)) for name in names]
    for name, path in zip(names, found, strict=True):
        if not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "no such file on a local disk"
            raise UserError(f"{name}: must be an image; it is {kind}")
    return found


def queries(names: Sequence[str], value_range: ValueRange | None) -> list[Query]:
    """Images that are decoded, and so known to be readable.

    Args:
      names: The paths as the user wrote them.
      value_range: The values that are black and white in an image of more than 8 bits.

    Raises:
      UserError: An image cannot be read.
    """
    found = []
    for name, path in zip(names, paths(names), strict=True):
        try:
            with open(path, "rb") as file:
                _, pixels = images.decoded(file.read(), value_range)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{name}: cannot be read ({reason})") from error
        found.append(Query(name, path, html.reduced(pixels, SIDE)))
    return found


def embedded(task: Task, found: Sequence[Query]) -> np.ndarray:
    """The features (Q, F) float32 of images, computed as those of an index were.

    Raises:
      DivergedError: Features are not finite.
    """
    folder = Folder(epath.Path("/"), [query.path for query in found], [], {})
    computed = task.extractor.evaluation(sources.readable(task.run_config, folder))
    return np.concatenate([each.x for each in computed])


def of_rows(
    task: Task, index: Index, rows: Iterable[int]
) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    """Pictures of images of an index, read from where they were embedded.

    Args:
      task: The evaluation that has written the index.
      index: The index.
      rows: The rows of the images.

    Returns:
      The pictures (H, W, 3) uint8 of those that can be read, by row, and the names of the classes,
      none where they are not known.

    Raises:
      UserError, ArgumentError, HostError: None can be read.
    """
    by_split: dict[str, dict[str, list[int]]] = {}
    for row in sorted(set(rows)):
        by_split.setdefault(index.split(row), {}).setdefault(index.name(row), []).append(row)
    opened = task.open(index.result["split"])
    pictures: dict[int, np.ndarray] = {}
    for split, wanted in by_split.items():
        source = opened[split]
        there = [
            (place, name)
            for place in range(len(source))
            if (name := parquet.as_text(source.name(place))) in wanted
        ]
        for start in range(0, len(there), _AT_A_TIME):
            part = there[start : start + _AT_A_TIME]
            loaded, _ = source.load([place for place, _ in part])
            for (place, name), image in zip(part, loaded, strict=True):
                if place not in source.bad:  # Another image stands for one that is.
                    picture = html.reduced(image.pixels(), SIDE)
                    pictures |= dict.fromkeys(wanted[name], picture)
    names = next((source.source.class_names for source in opened.values()), ())
    return pictures, tuple(names)
