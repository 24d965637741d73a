"""Frozen features: what a network makes of every image of a split, computed once and cached."""

import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.augment.device import to_float
from simclr_jax.augment.draws import CROP_AREA, Views
from simclr_jax.data import pipeline
from simclr_jax.data.order import Order
from simclr_jax.data.source import Readable
from simclr_jax.models.heads import count_layers
from simclr_jax.models.simclr import SimCLR
from simclr_jax.store import files


class Features(NamedTuple):
    """x (n, F) float32 and labels (n,) int32 (-1: none)."""

    x: np.ndarray
    labels: np.ndarray


class Extractor:
    """A frozen network, batch norm in inference mode, on all devices.

    Args:
      model, variables: a `SimCLR` and its {"params", "batch_stats"}.
      layer: 'pixels' (the images themselves), 'h', 'headK' (after layer K of the projection
        head) or 'z'.
      image_size: pixels.
      batch_size: over all devices.
      transfer_dtype: how images travel, as in training.
      mesh: of the devices.

    Raises:
      ValueError: the head has no such layer.
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
    ):
        layers = count_layers(model.head, model.head_layers)
        if layer.startswith("head") and int(layer[4:]) > layers:
            raise ValueError(f"{layer}: the projection head has {layers} layers")
        self.batch_size = batch_size
        self.image_size = image_size
        self._transfer_dtype = transfer_dtype
        self._variables = variables
        self._mesh = mesh
        self._rows = meshes.local_rows(mesh, batch_size)
        self._extract = jax.jit(
            partial(extract, model=model, layer=layer),
            out_shardings=meshes.replicated(mesh),
            compiler_options=meshes.compiler_options(mesh),
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """This process's rows (n, S, S, 3) of a batch to the global batch's features (B, F)."""
        batch = meshes.put({"image": images}, self._mesh)["image"]
        return np.asarray(self._extract(self._variables, batch))

    def evaluation(self, source: Readable) -> Features:
        """Features of every image of the source, once, in order, in its evaluation view."""
        batches = [features for features, _ in self.batches(source)]
        return Features(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))

    def batches(self, source: Readable) -> Iterator[tuple[Features, np.ndarray]]:
        """`evaluation` a batch at a time, and which rows (n,) bool are not of a replaced image."""
        start = 0
        for batch in pipeline.eval_batches(
            source,
            batch_size=self.batch_size,
            rows=self._rows,
            image_size=self.image_size,
            transfer_dtype=self._transfer_dtype,
        ):
            readable = np.array([index not in source.bad for index in start + self._rows])
            labels, readable = gather(batch["label"], self._mesh), gather(readable, self._mesh)
            n = min(self.batch_size, len(source) - start)
            yield Features(self(batch["image"])[:n], labels[:n]), readable[:n]
            start += n

    def augmented(
        self, source: Readable, *, batch_size: int, seed: int, steps: int
    ) -> Iterator[Features]:
        """Endless epochs of randomly cropped and flipped images, a batch at a time."""
        views = Views(
            size=self.image_size, count=1, ops=("crop", "flip"), strength=0.0, brightness="v2",
            crop_area=CROP_AREA, blur_on="host",
        )  # fmt: skip
        for batch in pipeline.train_batches(
            source,
            Order(len(source), batch_size, seed),
            views,
            rows=meshes.local_rows(self._mesh, batch_size),
            start_step=0,
            stop_step=steps,
            transfer_dtype=self._transfer_dtype,
        ):
            yield Features(self(batch["image"][:, 0]), gather(batch["label"], self._mesh))


def extract(variables: Any, images: jax.Array, *, model: SimCLR, layer: str) -> jax.Array:
    """(N, S, S, 3) images to (N, F) float32 features of a layer."""
    images = to_float(images)
    if layer == "pixels":
        return images.reshape(len(images), -1)
    outputs: Any = model.apply(variables, images, train=False)
    index = {"h": 0, "z": -1}[layer] if layer in ("h", "z") else int(layer.removeprefix("head"))
    return outputs.z[index].astype(jnp.float32)


def gather(rows: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Every process's rows of a batch, on every process."""
    if jax.process_count() == 1:
        return rows
    array = meshes.put({"rows": rows}, mesh)["rows"]
    return np.asarray(jax.jit(lambda x: x, out_shardings=meshes.replicated(mesh))(array))


def cached(folder: epath.Path, extractor: Extractor, source: Readable, **key: Any) -> Features:
    """`extractor.evaluation(source)`, kept in `folder` under a digest of `key` and the source.

    `key` must name all that the features depend on besides the source: checkpoint, split,
    transform, layer, dtype.
    """
    text = json.dumps({**key, "source": source.fingerprint()}, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"
    found = _kept(path)
    if processes.all_have(found is not None):
        assert found is not None
        return found
    features = extractor.evaluation(source)
    if processes.is_primary():
        folder.mkdir(parents=True, exist_ok=True)
        archive = io.BytesIO()
        np.savez(archive, x=features.x, labels=features.labels)
        files.write(path, archive.getvalue())
    return features


def _kept(path: epath.Path) -> Features | None:
    """Features in a file that `cached` wrote; None where there is none, or it is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return Features(stored["x"], stored["labels"])
    except Exception:  # NumPy and zipfile have many kinds for what is damaged
        return None


def digest(variables: Any) -> str:
    """A digest of a network's weights: the same weights, wherever they lie, share features."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        sha.update(jax.tree_util.keystr(path).encode())
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()
