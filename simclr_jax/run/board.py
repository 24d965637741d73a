"""What TensorBoard shows of a run in pictures: its first views, and evaluation images as points."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict
from PIL import Image

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.augment.device import Late, to_float, views_of
from simclr_jax.config import inputs
from simclr_jax.config.parts import Parts
from simclr_jax.data import pipeline
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import evenly_spaced
from simclr_jax.errors import one_line
from simclr_jax.models.simclr import SimCLR
from simclr_jax.pages import html
from simclr_jax.run.progress import MetricsLog
from simclr_jax.state import TrainState
from simclr_jax.store import projector

_log = logging.getLogger(__name__)

VIEWED = 8  # The number of images whose first views are shown.
POINTS = 1000  # The largest number of evaluation images that are shown as points.
THUMBNAIL = 48  # The largest side of the picture of such an image in pixels.
_BATCH = 64  # The number of images that a device takes at a time.

Batch = Mapping[str, np.ndarray]
Evaluate = Callable[[TrainState, Callable[[], bool]], dict[str, float] | None]


def viewed(
    batches: Iterator[Batch], config: FrozenConfigDict, log: MetricsLog, *, start: int
) -> Iterator[Batch]:
    """Yields the batches; shows the views of the first images of a run before its first step.

    Args:
      batches: The batches of a run, from update `start` + 1 on.
      config: The config of the run.
      log: The log of the run.
      start: The number of updates so far.
    """
    for number, batch in enumerate(batches, start):
        if number == 0 and config.log.tensorboard and processes.is_primary():
            log.picture("views", first_views(batch, inputs.late(config)), step=0)
        yield batch


def first_views(batch: Batch, late: Late) -> np.ndarray:
    """The views of the first `VIEWED` images of a batch, an image a column.

    Args:
      batch: The batch as the train step takes it, with "image" (n, V, S, S, C).
      late: The augmentations that the device applies.

    Returns:
      One picture (V·S, m·S, 3) uint8, as the network sees the views; see `html.rgb`.
    """
    some = {key: np.asarray(value[:VIEWED]) for key, value in batch.items() if key != "label"}
    count, views = some["image"].shape[:2]
    made = np.asarray(jax.jit(partial(views_of, late=late))(some))
    shown = html.rgb(as_uint8(made))
    by_view = shown.reshape(count, views, *shown.shape[1:]).swapaxes(0, 1)
    return projector.tiled(by_view.reshape(-1, *shown.shape[1:]), count)


def as_uint8(images: np.ndarray) -> np.ndarray:
    """Images as uint8, from uint8 or float in [0, 1]."""
    if images.dtype == np.uint8:
        return images
    return np.rint(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def projected(
    evaluate: Evaluate,
    config: FrozenConfigDict,
    built: Parts,
    source: Readable,
    folder: epath.Path,
) -> Evaluate:
    """An evaluation that also writes the representations at a run's end for the projector.

    Without TensorBoard it is `evaluate` itself.

    Args:
      evaluate: The evaluation.
      config: The config of the run.
      built: The parts of the run.
      source: The evaluation images, of which up to `POINTS`, evenly spaced, are shown.
      folder: The folder of the event files.
    """
    if not config.log.tensorboard:
        return evaluate
    order: np.ndarray = np.array(evenly_spaced(source, POINTS))  # type: ignore[arg-type]
    size = min(_BATCH, -(-len(order) // built.mesh.size)) * built.mesh.size

    def batches() -> Iterator[Batch]:
        return pipeline.eval_batches(
            source,
            batch_size=size,
            rows=meshes.local_rows(built.mesh, size),
            image_size=config.data.image_size,
            transfer_dtype=config.data.transfer_dtype,
            order=order,
        )

    def both(state: TrainState, give_up: Callable[[], bool]) -> dict[str, float] | None:
        scores = evaluate(state, give_up)
        if scores is not None and int(state.step) == built.schedule.total_steps:
            x, pictures, label, mask = represented(
                built.objective.model, state, batches(), built.mesh
            )
            if processes.is_primary():
                kept = mask[: len(order)]
                told = texts(source, order[kept], label[: len(order)][kept])
                name, shown = f"h, step {int(state.step)}", pictures[: len(order)][kept]
                try:
                    projector.write(folder, x[: len(order)][kept], told, shown, name=name)
                except Exception as error:  # The evaluation and the checkpoint matter more.
                    _log.warning(
                        "%s: the projector's files cannot be written (%s)",
                        folder,
                        one_line(error, 200),
                    )
        return scores

    return both


def represented(
    model: SimCLR, state: TrainState, batches: Iterator[Batch], mesh: Mesh
) -> tuple[np.ndarray, ...]:
    """The representations (N, F), thumbnails (N, T, T, 3), labels and masks (N,) of images.

    Args:
      model: The network.
      state: The state whose weights are used, with batch norm in inference mode.
      batches: The batches of evaluation views.
      mesh: The mesh of the devices.
    """

    def apply(variables: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        outputs: Any = model.apply(variables, to_float(batch["image"]), train=False)
        return outputs.h, batch["image"], batch["label"], batch["mask"]

    run = jax.jit(
        apply,
        out_shardings=meshes.replicated(mesh),
        compiler_options=meshes.compiler_options(mesh),
    )
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    found: list[tuple[np.ndarray, ...]] = []
    for batch in batches:
        h, image, label, mask = map(np.asarray, run(variables, meshes.put(batch, mesh)))
        found.append((h.astype(np.float32), thumbnails(image), label, mask))
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images (n, S, S, C), uint8 or float in [0, 1], as small pictures (n, T, T, 3) uint8."""
    side = min(THUMBNAIL, images.shape[1])
    small = [Image.fromarray(image).resize((side, side)) for image in html.rgb(as_uint8(images))]
    return np.stack([np.asarray(image) for image in small])


def texts(source: Readable, index: np.ndarray, labels: np.ndarray) -> dict[str, list[str]]:
    """What is told of images: the names of their classes, where there are any, and their names.

    Args:
      source: The images.
      index: The indices of the images, (n,) int.
      labels: Their labels, (n,) int or (n, C) of 0 and 1; -1: none.
    """
    names = {"image": [source.name(int(each)) for each in index]}
    if not source.num_classes:
        return names
    known = source.source.class_names or tuple(map(str, range(source.num_classes)))
    of_each = [np.flatnonzero(row == 1) if row.ndim else [row][: int(row >= 0)] for row in labels]
    return {"class": [", ".join(known[each] for each in classes) for classes in of_each], **names}
