"""The input pipeline: batches of NumPy arrays on this host, from a source and an order.

The batch of a step is a function of the seed and the step, so a resumed run sees the same batches.
"""

from __future__ import annotations

import contextlib

import numpy as np
from etils import epy

from simclr_jax.augment import all_views, device, draws, host
from simclr_jax.augment.draws import Views
from simclr_jax.augment.whole import Whole
from simclr_jax.data import windows
from simclr_jax.data.order import Order, Picked
from simclr_jax.data.readable import Readable
from simclr_jax.data.stream import Batches, Making, Numbers, stream

with epy.lazy_imports():
    import tensorflow as tf


def train_batches(
    source: Readable,
    order: Order | Picked,
    views: Views,
    *,
    rows: np.ndarray,
    start_step: int,
    stop_step: int,
    transfer_dtype: str,
) -> Batches:
    """Yields the augmented batches of training, a pure function of the arguments.

    Args:
      source: The images.
      order: The order of the examples. Its seed is the seed of the augmentations too.
      views: The settings of the augmentation.
      rows: The rows of the global batch to produce, (n,) int, ascending.
      start_step: The step of the first batch.
      stop_step: The step after that of the last batch.
      transfer_dtype: The dtype of the images on their way to the device: 'uint8', which rounds to
        multiples of 1/255, or 'float32', which is exact.

    Yields:
      "image" (n, V, size, size, C) in `transfer_dtype`; "label", the labels as the source loads
      them, (n,) int32 or (n, C) int8; and the numbers of the operations that the device has yet to
      apply, from `device.numbers_of`, with the blur's as "blur_sigma", 0 where there is none. V is
      `views.count`.
    """
    whole = Whole(views, seed=order.seed, dtype=transfer_dtype)
    on_device = device.late_of(views, "device")

    def examples_of(step: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        return order.batch(int(step), rows)

    ops = whole.before

    def numbers_of(
        index: np.ndarray, epoch: np.ndarray, sizes: np.ndarray, windowed: np.ndarray
    ) -> tuple[np.ndarray, Numbers]:
        keys = whole.keys(index, epoch)
        drawn = all_views.draw(keys, sizes[:, 0], sizes[:, 1], views, ops)
        parts, early = _windows(drawn, ops, sizes, windowed)
        return parts, Numbers(early, whole.numbers(index, epoch) if whole.can_end else {})

    def augmented(image: tf.Tensor, drawn: list[draws.Draw]) -> tf.Tensor:
        made = _views(image, drawn, ops, views)
        if whole.can_end:
            return made
        exact = transfer_dtype == "float32" and views.left_to_device  # The device clips it.
        return made if exact else to_transfer(tf.clip_by_value(made, 0.0, 1.0), transfer_dtype)

    steps = range(start_step, stop_step)
    making = Making(examples_of, numbers_of, augmented, whole)
    batches = stream(source, steps, making, len(rows))
    with contextlib.closing(batches):
        for step, batch in zip(steps, batches, strict=True):
            numbers = device.numbers_of(on_device, whole.keys(*examples_of(step)), views)
            yield {**batch, **device.in_batch(numbers, (len(rows), views.count))}


def eval_batches(
    source: Readable,
    *,
    batch_size: int,
    rows: np.ndarray,
    image_size: int,
    transfer_dtype: str,
    crop_proportion: float = host.EVAL_CROP_PROPORTION,
    order: np.ndarray | None = None,
) -> Batches:
    """Yields the batches of evaluation, with every readable example once.

    Args:
      source: The images.
      batch_size: The number of images of a global batch.
      rows: The rows of the global batch to produce, (n,) int, ascending.
      image_size: The height and the width of the images, in pixels.
      transfer_dtype: The dtype of the images on their way to the device, 'uint8' or 'float32'.
      crop_proportion: The side of the central crop; see `host.eval_view`.
      order: The indices of the examples in order, int. The default is all examples of the source.

    Yields:
      "image" (n, image_size, image_size, C) in `transfer_dtype`, "label" (n,) int32 or (n, C) int8,
      and "mask" (n,) bool. The mask is False where an image stands for another one: the last batch
      is padded with repeated examples, and unreadable images are replaced.
    """
    order = np.arange(len(source)) if order is None else order
    total = len(order)

    def indices_and_masks(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position = int(step) * batch_size + np.asarray(rows, np.int64)
        return order[np.minimum(position, total - 1)], (position < total).astype(np.int64)

    def numbers_of(
        index: np.ndarray, mask: np.ndarray, sizes: np.ndarray, windowed: np.ndarray
    ) -> tuple[np.ndarray, Numbers]:
        return windows.of_whole(sizes), Numbers([], {})

    def view(image: tf.Tensor, drawn: list) -> tf.Tensor:
        made = host.eval_view(image, size=image_size, crop_proportion=crop_proportion)
        return to_transfer(made, transfer_dtype)

    steps = range(-(-total // batch_size))
    batches = stream(source, steps, Making(indices_and_masks, numbers_of, view), len(rows))
    with contextlib.closing(batches):
        for step, batch in zip(steps, batches, strict=True):
            index, mask = indices_and_masks(np.array(step))
            yield {**batch, "mask": (mask > 0) & source.readable(index)}


def _windows(
    drawn: list[draws.Draw], ops: list[tuple[str, ...]], sizes: np.ndarray, windowed: np.ndarray
) -> tuple[np.ndarray, list[draws.Draw]]:
    """The windows (n, 4) of images, and the draws of their views with the crops inside them."""
    crops = [names[0] if names[:1] in (("crop",), ("shared_crop",)) else "" for names in ops]
    if not all(crop and names.count(crop) == 1 for crop, names in zip(crops, ops, strict=True)):
        return windows.of_whole(sizes), drawn
    boxes = [draw[crop] for draw, crop in zip(drawn, crops, strict=True)]
    parts = windows.around(boxes, sizes, windowed)
    return parts, [
        {**draw, crop: windows.moved(draw[crop], parts)}
        for draw, crop in zip(drawn, crops, strict=True)
    ]


def _views(
    image: tf.Tensor, numbers: list[draws.Draw], ops: list[tuple[str, ...]], views: Views
) -> tf.Tensor:
    """The views (V, S, S, C) of an image after some operations of each, float32."""
    made: list[tf.Tensor] = []
    for drawn, names in zip(numbers, ops, strict=True):
        # One after the other: the crops of a large photograph take much memory.
        with tf.control_dependencies(made):
            made.append(host.random_view(image, drawn, names, views))
    return tf.stack(made)


def to_transfer(image: tf.Tensor, dtype: str) -> tf.Tensor:
    """Converts an image to the dtype in which it is sent to the device.

    Args:
      image: An image or several, float32 in [0, 1].
      dtype: The dtype: 'float32', or 'uint8' for the nearest of 256 levels.

    >>> to_transfer(tf.constant([0.0, 0.5, 1.0]), "uint8").numpy().tolist()
    [0, 128, 255]
    """
    return image if dtype == "float32" else tf.cast(tf.round(image * 255.0), tf.uint8)
