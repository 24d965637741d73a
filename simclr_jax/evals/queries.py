"""Images that are compared with those of an index."""

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
from simclr_jax.evals.index import SIDE
from simclr_jax.evals.task import Task
from simclr_jax.pages import html


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


def read(names: Sequence[str], value_range: ValueRange | None, channels: int = 3) -> list[Query]:
    """Images that are decoded, and so known to be readable.

    Args:
      names: The paths as the user wrote them.
      value_range: The values that are black and white in an image of more than 8 bits.
      channels: The number of channels of the images.

    Raises:
      UserError: An image cannot be read.
    """
    found = []
    for name, path in zip(names, paths(names), strict=True):
        try:
            with open(path, "rb") as file:
                pixels = images.pixels(file.read(), value_range, channels)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{name}: cannot be read ({reason})") from error
        found.append(Query(name, path, html.reduced(html.rgb(pixels), SIDE)))
    return found


def embedded(task: Task, found: Sequence[Query]) -> np.ndarray:
    """The features (Q, F) float32 of images, computed as those of an index were.

    Raises:
      DivergedError: Features are not finite.
      UserError: Those of an image are all zero: all images are equally similar to it.
    """
    folder = Folder(epath.Path("/"), [query.path for query in found], [], {})
    computed = task.extractor.evaluation(sources.readable(task.run_config, folder))
    features = np.concatenate([each.x for each in computed])
    for query, feature in zip(found, features, strict=True):
        if not feature.any():
            raise UserError(f"{query.name}: its features are all zero, so no image is nearer to it")
    return features
