"""Frozen features: the outputs of a layer for every image of a split, computed once and cached."""

import contextlib
import copy
import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.augment import crops
from simclr_jax.augment.device import to_float
from simclr_jax.augment.draws import Views
from simclr_jax.augment.host import EVAL_CROP_PROPORTION
from simclr_jax.data import pipeline, stream
from simclr_jax.data.fingerprint import cache_key
from simclr_jax.data.order import Order
from simclr_jax.data.readable import Readable
from simclr_jax.errors import DivergedError
from simclr_jax.evals import stored
from simclr_jax.models.heads import count_layers
from simclr_jax.models.simclr import SimCLR
from simclr_jax.run.progress import Count, note
from simclr_jax.store import files

Change = Callable[[jax.Array, jax.Array], jax.Array]  # See `Extractor.batches`.


class Features(NamedTuple):
    """The features of images, with their labels.

    Attributes:
      x: The features (n, F) float32; those of a file are mapped, and read as their rows are taken.
      labels: The labels (n,) int32; -1: none. With several labels an image (n, C) int8: 1 there, 0
        absent, -1 not counted.
    """

    x: np.ndarray
    labels: np.ndarray


class Computes(Protocol):
    """What computes the features of a source, such as an `Extractor`."""

    def evaluation(self, source: Readable) -> Iterator[Features]:
        """Yields the features of every readable image of a source, in order, in batches."""
        ...


class Extractor:
    """Computes features on all devices with a frozen network, batch norm in inference mode.

    Args:
      model: The module.
      variables: The weights, {"params", "batch_stats"}.
      layer: The layer: 'pixels' (the images), 'h' (the representation), 'headK' (after layer K of
        the projection head), 'z' (the embedding) or 'logits' (the classifier's outputs).
      image_size: The side S of the images in pixels.
      batch_size: The number of images of a global batch.
      transfer_dtype: The dtype in which images go to the devices, 'uint8' or 'float32'.
      mesh: The mesh of the devices.
      crop_proportion: The side of the central crop of an image; see `host.eval_view`.

    Attributes:
      layer: The layer.

    Raises:
      ValueError: The network has no such layer.
    """

    def __init__(
        self,
        model: SimCLR,
        variables: Any,
        *,
        layer: str,
        image_size: int,
        batch_size: int,
        transfer_dtype: str,
        mesh: Mesh,
        crop_proportion: float = EVAL_CROP_PROPORTION,
    ):
        layers = count_layers(model.head, model.head_layers)
        if layer.startswith("head") and int(layer[4:]) > layers:
            raise ValueError(f"{layer}: the projection head has {layers} layers")
        if layer == "logits" and not model.classes:
            raise ValueError(f"{layer}: the run has no classifier; it was trained without labels")
        self.batch_size = batch_size
        self.image_size = image_size
        self._transfer_dtype = transfer_dtype
        self._crop_proportion = crop_proportion
        self.layer = layer
        self._variables = variables
        self._mesh = mesh
        self._rows = meshes.local_rows(mesh, batch_size)
        self._extract = jax.jit(
            partial(extract, model=model, layer=layer),
            out_shardings=meshes.replicated(mesh),
            compiler_options=meshes.compiler_options(mesh),
        )

    def of(self, variables: Any) -> "Extractor":
        """The same extractor with other weights, which are not compiled anew."""
        other = copy.copy(self)
        other._variables = variables
        return other

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features (B, F) of a global batch, of which a process has rows (n, S, S, C)."""
        on_devices = meshes.put({"image": images}, self._mesh)["image"]
        return np.asarray(self._extract(self._variables, on_devices))

    def evaluation(self, source: Readable) -> Iterator[Features]:
        """Yields the features of the evaluation view of every readable image of a source, in order.

        Raises:
          DivergedError: Features are not finite.
        """
        for features, readable in self.batches(source):
            yield finite(Features(features.x[readable], features.labels[readable]), self.layer)

    def batches(
        self, source: Readable, change: Change | None = None
    ) -> Iterator[tuple[Features, np.ndarray]]:
        """Yields the features of the evaluation view of every image of a source in batches.

        With each batch come n bools, False where an unreadable image was replaced.

        Args:
          source: The images.
          change: What is done to the views first: a function of a global batch of them and of the
            index (B,) int32 of each image in the source. None: nothing.
        """
        waiting: deque[tuple[jax.Array, np.ndarray, np.ndarray]] = deque()

        def fetched() -> tuple[Features, np.ndarray]:
            x, labels, readable = waiting.popleft()
            return Features(np.asarray(x)[: len(labels)], labels), readable

        start = 0
        for batch in pipeline.eval_batches(
            source,
            batch_size=self.batch_size,
            rows=self._rows,
            image_size=self.image_size,
            transfer_dtype=self._transfer_dtype,
            crop_proportion=self._crop_proportion,
        ):
            labels, readable = gather(batch["label"], self._mesh), gather(batch["mask"], self._mesh)
            n = min(self.batch_size, len(source) - start)
            images = meshes.put({"image": batch["image"]}, self._mesh)["image"]
            if change is not None:
                index = np.minimum(start + self._rows, len(source) - 1).astype(np.int32)
                images = change(images, meshes.put({"index": index}, self._mesh)["index"])
            # While the devices compute a batch, the one before is fetched and the next one sent.
            waiting.append((self._extract(self._variables, images), labels[:n], readable[:n]))
            if len(waiting) > 1:
                yield fetched()
            start += n
        while waiting:
            yield fetched()

    def augmented(
        self, source: Readable, *, batch_size: int, seed: int, steps: int
    ) -> Iterator[Features]:
        """Yields the features of batches of randomly cropped and flipped images.

        Args:
          source: The images.
          batch_size: The number of images of a global batch.
          seed: The seed of the order and of the augmentations.
          steps: The number of batches.
        """
        views = Views(
            size=self.image_size, ops=(("crop", "flip"),), strength=0.0, brightness="v2",
            crop_area=crops.AREA, colour_on="host", blur_on="host", channels=source.channels,
        )  # fmt: skip
        order = Order(len(source), batch_size, seed)
        for batch in self._views(source, order, views, steps):
            labels = gather(batch["label"], self._mesh)
            yield finite(Features(self(batch["image"][:, 0]), labels), self.layer)

    def views(self, source: Readable, views: Views, *, seed: int) -> Iterator[np.ndarray]:
        """Yields the features (n, V, F) of V random views of every readable image, once.

        Args:
          source: The images.
          views: The settings of the augmentation, with a blur on the host.
          seed: The seed of the order and of the augmentations.

        Raises:
          DivergedError: Features are not finite.
        """
        order = Order(len(source), self.batch_size, seed)
        steps = -(-len(source) // self.batch_size)
        for step, batch in enumerate(self._views(source, order, views, steps)):
            index, epoch = order.batch(step, self._rows)
            kept = gather((epoch == 0) & source.readable(index), self._mesh)
            labels = gather(batch["label"], self._mesh)[kept]
            found = [self(batch["image"][:, view])[kept] for view in range(views.count)]
            yield np.stack([finite(Features(x, labels), self.layer).x for x in found], axis=1)

    def _views(
        self, source: Readable, order: Order, views: Views, steps: int
    ) -> Iterator[stream.Batch]:
        """Yields this process's rows of batches of random views; see `pipeline.train_batches`."""
        return pipeline.train_batches(
            source,
            order,
            views,
            rows=meshes.local_rows(self._mesh, order.batch_size),
            start_step=0,
            stop_step=steps,
            transfer_dtype=self._transfer_dtype,
        )


def extract(variables: Any, images: jax.Array, *, model: SimCLR, layer: str) -> jax.Array:
    """The features (N, F) float32 of a layer.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      images: The images (N, S, S, C), uint8 or float32 in [0, 1].
      model: The module.
      layer: The layer; see `Extractor`.
    """
    images = to_float(images)
    if layer == "pixels":
        return images.reshape(len(images), -1)
    outputs: Any = model.apply(variables, images, train=False)
    if layer == "logits":
        return outputs.logits.astype(jnp.float32)
    index = {"h": 0, "z": -1}[layer] if layer in ("h", "z") else int(layer.removeprefix("head"))
    return outputs.z[index].astype(jnp.float32)


def gather(rows: np.ndarray, mesh: Mesh) -> np.ndarray:
    """The rows of all processes' parts of a batch, on every process."""
    if jax.process_count() == 1:
        return rows
    return meshes.on_host(meshes.put({"rows": rows}, mesh)["rows"])


def are_finite(x: np.ndarray) -> np.ndarray:
    """Whether each row of features (n, F) is finite and has a finite norm, as bools (n,).

    >>> are_finite(np.float32([[1, 2], [np.nan, 0], [1e30, 0]]))
    array([ True, False, False])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.einsum("nf,nf->n", x, x))


def finite(features: Features, layer: str) -> Features:
    """The features, if they are finite.

    Raises:
      DivergedError: They are not.
    """
    wrong = np.count_nonzero(~are_finite(features.x))
    if wrong:
        raise DivergedError(
            f"{wrong} of {len(features.x)} images of a batch have features of the layer {layer} "
            "that are not finite, or too large to square: the network's weights are too large"
        )
    return features


def cached(
    folder: epath.Path | None,
    extractor: Computes,
    source: Readable,
    *,
    keep: int,
    stored_dtype: str = "float32",
    **key: Any,
) -> Features:
    """The features of every readable image of a source, from a file if they were computed before.

    They are written as they are computed, and mapped into memory: there is never more than a batch
    of them that the operating system could not drop and read again.

    Args:
      folder: The folder of the files, which are named by a digest of `key` and the source. None:
        the features are kept for as long as they are used.
      extractor: The extractor that computes the features where there is no file.
      source: The images.
      keep: The number of files to keep, the latest used ones; the others are deleted.
      stored_dtype: The dtype in the file, one of `stored.DTYPES`.
      **key: All that the features depend on besides the source, as JSON: the weights, the
        transform, the layer, the image size, the dtypes.
    """
    labels = source.num_classes  # With 0 they are unused, and stored as -1.
    key |= {"source": cache_key(source.source), "labels": labels}
    key |= {} if stored_dtype == "float32" else {"stored_dtype": stored_dtype}
    text = json.dumps(key, sort_keys=True)
    path = folder and folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npy"
    found = path and stored.read(path)
    if processes.all_have(found is not None):
        assert found is not None
        return Features(*found)
    with contextlib.ExitStack() as stack:
        if path and processes.is_primary():
            path.parent.mkdir(parents=True, exist_ok=True)
            (place,) = stack.enter_context(files.replacing(path))
        else:
            place = stack.enter_context(files.temporary_folder()) / "features"
        stored.write(place, _counted(extractor, source), dtype=stored_dtype)
        features = Features(*stored.mapped(place))
    if folder and processes.is_primary():
        stored.prune(folder, keep)
    processes.meet()
    return features


def _counted(extractor: Computes, source: Readable) -> Iterator[Features]:
    """Yields the features of a source, and says how far they are."""
    note(f"computing the features of {len(source):,} images of {source.split!r}")
    count = Count("features", len(source), sys.stderr)
    try:
        for found in extractor.evaluation(source):
            yield found
            count.add(len(found.x))
    finally:  # A terminal's line is ended before an error is told.
        count.end()


def digest(variables: Any) -> str:
    """The SHA-256 of a network's weights, by which equal weights share features.

    >>> digest({"w": np.zeros(2, np.float32)}) == digest({"w": jnp.zeros(2)})
    True
    """
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        sha.update(jax.tree_util.keystr(path).encode())
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()
