"""What a run sees: images with some of their augmented views, and what was drawn for each."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from simclr_jax.augment import device, draws, keys, words
from simclr_jax.config import inputs
from simclr_jax.data.order import Picked
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import evenly_spaced

_CANDIDATES = 4  # The images that are tried for each one that is shown, as some may be unreadable.


class View(NamedTuple):
    """An augmented view of an image.

    Attributes:
      epoch: The epoch of the run in which it is seen, from 0.
      number: The number of the view among those of its image in that epoch, from 0.
      image: The input of the network, (S, S, C) float32 in [0, 1].
      words: What was drawn, by the name of the operation; none where it changes nothing.
      box: The crop on the image, (x, y, width, height) as fractions of its sides; None without one.
    """

    epoch: int
    number: int
    image: np.ndarray
    words: dict[str, str]
    box: tuple[float, float, float, float] | None


class Example(NamedTuple):
    """An image and some of its views.

    Attributes:
      number: The index of the image among those that are trained on.
      name: The name of the image within the dataset.
      label: The name of its class, or of its classes; '' without one.
      image: The pixels (H, W, C), uint8.
      views: The views.
    """

    number: int
    name: str
    label: str
    image: np.ndarray
    views: list[View]


def of_run(config: FrozenConfigDict, source: Readable, *, images: int, views: int) -> list[Example]:
    """Makes views of images, evenly spaced in the training split, as the run makes them.

    They go through the pipeline and the operations of the device, as in a train step. The first
    views are those of epoch 0, then come those of the next epochs.

    Args:
      config: The config of the run.
      source: The images to train on.
      images: The largest number of images.
      views: The number of views of each.

    Raises:
      ArgumentError: No image can be read.
    """
    settings = inputs.views(config)
    index = picked(source, images)
    epochs = -(-views // settings.count)
    made = views_of(config, source, index, range(epochs))
    loaded, labels = source.load(index)
    pixels = [image.pixels() for image in loaded]
    height, width = np.array([image.shape[:2] for image in pixels]).T
    seen: list[list[View]] = [[] for _ in pixels]
    for epoch, view in itertools.product(range(epochs), range(settings.count)):
        key = keys.image_keys(config.seed, np.full(len(index), epoch), index, view)
        drawn = draws.draw(key, height, width, settings, view)
        for row, of_image in enumerate(seen):
            own, sides = words.of_row(drawn, row), (int(height[row]), int(width[row]))
            said, box = words.in_words(own, settings, *sides), words.box_of(own, *sides)
            of_image.append(View(epoch, view, made[epoch][row, view], said, box))
    return [
        Example(number, source.name(number), _label(source, labels[row]), pixels[row], of[:views])
        for row, (number, of) in enumerate(zip(index.tolist(), seen, strict=True))
    ]


def views_of(
    config: FrozenConfigDict, source: Readable, index: np.ndarray, epochs: Sequence[int]
) -> list[np.ndarray]:
    """The views of images as the input of the network, an array (n, V, S, S, C) for each epoch.

    Args:
      config: The config of the run.
      source: The images to train on.
      index: The indices of the images, (n,) int.
      epochs: The epochs.

    Returns:
      The views, float32 in [0, 1].
    """
    order = Picked(
        np.stack([index] * len(epochs)), np.array([[e] * len(index) for e in epochs]), config.seed
    )
    batches = inputs.train_batches(
        config,
        source,
        rows=np.arange(len(index)),
        start_step=0,
        stop_step=len(epochs),
        in_order=order,
    )
    finish = jax.jit(partial(device.views_of, late=inputs.late(config)))
    with contextlib.closing(batches):
        made = [(np.asarray(finish(batch)), batch["image"].shape) for batch in batches]
    return [images.reshape(shape) for images, shape in made]


def picked(source: Readable, count: int) -> np.ndarray:
    """The indices of at most `count` readable images, evenly spaced, (n,) int64.

    Raises:
      ArgumentError: No image can be read.
    """
    candidates = np.array(evenly_spaced(source.source, count))
    source.load(candidates)
    if not source.readable(candidates).all():
        candidates = np.array(evenly_spaced(source.source, _CANDIDATES * count))
        source.load(candidates)
        candidates = candidates[source.readable(candidates)]
    chosen = np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round()
    return candidates[np.unique(chosen.astype(np.int64))]


def _label(source: Readable, label: np.ndarray) -> str:
    """The name of a class, or of the classes of an image, by what a source loads as its label."""
    numbers = np.flatnonzero(label == 1) if source.multilabel else np.atleast_1d(label)
    names = source.source.class_names
    return ", ".join(
        names[number] if names else f"class {number}" for number in map(int, numbers) if number >= 0
    )
