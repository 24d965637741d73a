"""The pictures of a report: images of the evaluation split with the features of a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from simclr_jax.config import overrides, sources
from simclr_jax.data.source import evenly_spaced, is_labelled
from simclr_jax.data.splits import Subset
from simclr_jax.errors import UserError
from simclr_jax.evals import coming
from simclr_jax.evals import features as features_of
from simclr_jax.evals.similarity import Nearest
from simclr_jax.evals.task import Task
from simclr_jax.losses.neighbours import few
from simclr_jax.pages import html
from simclr_jax.pages.clouds import name_of
from simclr_jax.reports import neighbours
from simclr_jax.reports.runs import Run
from simclr_jax.run.network import Network
from simclr_jax.store import checkpoint

SIDE = 96  # The largest side in pixels of a picture.
MAP_SIDE = 64  # The side of the pictures of a map.
VOTERS, TEMPERATURE = 20, 0.1  # The most neighbours that vote, and their votes' temperature.
JUDGED_LEAST = 10  # The fewest images of which each is judged by the others.
QUERIES, SHOWN = 8, 8  # The images whose neighbours are shown, and the number of neighbours.
FAILURES = 12  # The largest number of failures that are shown.
FILTERS = 128  # The largest number of filters that a report shows.
UMAP_LEAST = 5  # The fewest images of which UMAP makes a map.
_AT_A_TIME = 64  # The number of images that are decoded at a time.


class Sample(NamedTuple):
    """Images of the evaluation split, with what the network makes of them.

    Attributes:
      names: The names of the N images within the dataset.
      pictures: The images (H, W, 3) uint8, of `SIDE` pixels at most.
      labels: The labels (N,) int32; -1: none.
      classes: The names of the classes; none where there are no labels.
      x: The features (N, F) of the layer h.
      nearest: The nearest others of each.
      about: What the images are and how they were chosen, as a sentence.
    """

    names: list[str]
    pictures: list[np.ndarray]
    labels: np.ndarray
    classes: list[str]
    x: np.ndarray
    nearest: Nearest
    about: str

    def text(self, index: int) -> str:
        """An image in words: its class and its name."""
        label = int(self.labels[index])
        what = f"{name_of(label, self.classes)}, " if label >= 0 else ""
        return f"{what}image {self.names[index]}"

    @property
    def several_classes(self) -> bool:
        """Whether there are images of two classes at least."""
        return len(np.unique(self.labels[self.labels >= 0])) > 1


def newest(run: Run) -> Network:
    """The network of a run's newest checkpoint; see `coming.newest`."""
    checkpoint.quiet()
    return coming.newest(checkpoint.Reader(run.root), str(run.root))


def sample(network: Network, count: int, *, directory: str | None = None) -> Sample:
    """Images of the evaluation split of a run, evenly spaced, with their features.

    Args:
      network: The network.
      count: The largest number of images, at least 2.
      directory: The place of the images; None: that of the run.

    Raises:
      UserError, ArgumentError, HostError: The images cannot be read, or there are fewer than two.
      DivergedError: Features are not finite.
    """
    config = overrides.load(["--config=eval/geometry"])  # A protocol that takes images of any kind.
    config = overrides.changed(config, {"data.dir": directory})
    task = Task(ConfigDict(config), network, None)
    split = task.test
    rows = np.array(evenly_spaced(split.source, count))
    chosen = sources.readable(task.run_config, Subset(split.source, rows, split.split))
    computed, kept = [], []
    for found, readable in task.extractor.batches(chosen):
        computed.append(features_of.finite(_only(found, readable), task.extractor.layer))
        kept.append(readable)
    index = np.flatnonzero(np.concatenate(kept))
    if len(index) < 2:
        raise UserError(f"{split.split!r} has {len(index)} images that can be read; it needs two")
    x, labels = (np.concatenate(each) for each in zip(*computed, strict=True))
    several = labels.ndim > 1
    labels = np.full(len(x), -1, np.int32) if several else labels
    known = bool(is_labelled(labels).any())
    names = [name_of(label, chosen.source.class_names) for label in range(chosen.num_classes)]
    return Sample(
        names=[chosen.name(int(row)) for row in index],
        pictures=_pictures(chosen, index),
        labels=labels,
        classes=names if known else [],
        x=x,
        nearest=neighbours.nearest(x, max(SHOWN, VOTERS)),
        about=_about(network, split, len(rows), len(index), several=several),
    )


def _only(found: features_of.Features, rows: np.ndarray) -> features_of.Features:
    return features_of.Features(found.x[rows], found.labels[rows])


def _about(network: Network, split: Any, chosen: int, read: int, *, several: bool) -> str:
    which = "all" if chosen == len(split) else f"{chosen:,}, evenly spaced,"
    lost = f"; {chosen - read} of them cannot be read and are left out" if read < chosen else ""
    labels = "; an image can have several labels, which are not used here" if several else ""
    shown = html.shown_as(network.config.data.channels)
    return (
        f"Of checkpoint {network.name}, with {which} of the {len(split):,} images of "
        f"{split.split!r} of {split.source.place}{lost}{labels}. {shown}".rstrip()
    )


def _pictures(source: Any, index: np.ndarray) -> list[np.ndarray]:
    """Pictures of images, a part of them decoded at a time."""
    found = []
    for start in range(0, len(index), _AT_A_TIME):
        images, _ = source.load(index[start : start + _AT_A_TIME])
        found += [html.reduced(html.rgb(image.pixels()), SIDE) for image in images]
    return found


def square(image: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, 3) uint8 in the middle of a square, enlarged by a whole number."""
    image = html.reduced(image, side)
    times = max(1, side // max(image.shape[:2]))
    image = np.repeat(np.repeat(image, times, axis=0), times, axis=1)
    height, width = image.shape[:2]
    whole = np.full((side, side, 3), 128, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    whole[top : top + height, left : left + width] = image
    return whole


def queries(found: Sample, most: int = QUERIES) -> list[int]:
    """Images whose neighbours are shown: of different classes where there are labels."""
    labels = found.labels
    kinds = np.unique(labels[labels >= 0])
    if len(kinds) < 2:
        return evenly_spaced(range(len(labels)), most)  # type: ignore[arg-type]
    chosen = [kinds[row] for row in evenly_spaced(range(len(kinds)), most)]  # type: ignore[arg-type]
    return [int(np.flatnonzero(labels == kind)[0]) for kind in chosen]


class Failure(NamedTuple):
    """An image whose neighbours are of another class.

    Attributes:
      image: The row of the image.
      taken_for: The class that got most votes.
      share: The share of the votes for it.
      misled_by: The row of the most similar image of that class.
    """

    image: int
    taken_for: int
    share: float
    misled_by: int


def voting(count: int) -> int:
    """The number of neighbours that vote for an image: `VOTERS`, but at most a tenth of the others.

    An image is left out of its own votes, so its class has a vote less than it would: where all the
    others vote, the most frequent of the other classes wins, whatever is near.

    >>> voting(1000), voting(20)
    (20, 1)

    Args:
      count: The number of images, with that one.
    """
    return min(VOTERS, few(count - 1))


def judged(found: Sample) -> tuple[np.ndarray, list[Failure]]:
    """What an image's neighbours say of its class, each image left out of its own neighbours.

    `voting` says how many neighbours vote.

    Returns:
      The confusion matrix (C, C), and the failures, those with the most votes first.
    """
    classes = len(found.classes)
    k = voting(len(found.labels))
    shares = neighbours.votes(
        found.nearest, found.labels, classes=classes, k=k, temperature=TEMPERATURE
    )
    taken_for, known = shares.argmax(axis=1), shares.max(axis=1) > 0
    labels = np.where(known, found.labels, -1)
    wrong = np.flatnonzero((labels >= 0) & (taken_for != labels))
    wrong = wrong[np.argsort(-shares[wrong, taken_for[wrong]], kind="stable")]
    failures = []
    for index in wrong.tolist():
        near, kind = found.nearest.rows[index], int(taken_for[index])
        misled_by = int(near[found.labels[near] == kind][0])
        failures.append(Failure(index, kind, float(shares[index, kind]), misled_by))
    return neighbours.confusion(labels, taken_for, classes), failures


def mapped(x: np.ndarray, by: str) -> tuple[np.ndarray, str]:
    """The places (N, 2) of images on a map of their features, and a sentence about it.

    Args:
      x: The features (N, F).
      by: The method, 'pca' or 'umap'.
    """
    if by == "umap" and len(x) >= UMAP_LEAST:
        near = min(15, len(x) - 1)
        umap: Any = importlib.import_module("umap")  # An extra, which takes seconds to import.
        made = umap.UMAP(n_neighbors=near, metric="cosine", random_state=0, n_jobs=1)
        told = f"UMAP of the features, {near} neighbours, cosine distance, seed 0"
        return np.asarray(made.fit_transform(x)), f"{told}. Distances between groups mean little."
    places, share = neighbours.by_pca(x)
    few = f" UMAP needs {UMAP_LEAST} images." if by == "umap" else ""
    return places, (
        "The first two principal components of the features at unit length, which have "
        f"{share:.0%} of their variance.{few}"
    )


def filters(network: Network) -> Sequence[np.ndarray]:
    """The filters of the first convolution as pictures (K, K, 3) uint8, grey for 0.

    Each is scaled by its own largest weight. Of images with other channels than red, green and blue
    a filter is the mean over the channels.
    """
    encoder = network.variables["params"]["encoder"]
    stem = next(encoder[name] for name in sorted(encoder) if name.startswith("stem_conv"))
    kernel = np.asarray(stem["kernel"], np.float32)
    if kernel.shape[2] != 3:
        kernel = np.repeat(kernel.mean(axis=2, keepdims=True), 3, axis=2)
    scale = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), 1e-12)
    pixels = np.round(127.5 + 127.5 * kernel / scale).clip(0, 255).astype(np.uint8)
    return [pixels[..., number] for number in range(pixels.shape[-1])]
