"""The input pipeline: batches of NumPy arrays on this host, from a source and an order.

The batch of a step is a function of the seed and the step, so a resumed run sees the same batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from etils import epy

from simclr_jax.augment import draws, host, keys
from simclr_jax.augment.draws import Views
from simclr_jax.data.order import Order
from simclr_jax.data.source import Readable
from simclr_jax.data.turns import Turns

with epy.lazy_imports():
    import tensorflow as tf

Batch = dict[str, np.ndarray]  # The arrays of this process's rows of a batch, by name.
Batches = Generator[Batch, None, None]  # Closing the generator ends the threads of tf.data.


def train_batches(
    source: Readable,
    order: Order,
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
      "image" (n, V, size, size, 3) in `transfer_dtype`; "label", the labels as the source loads
      them, (n,) int32 or (n, C) int8; and "blur_sigma" (n, V) float32, the sigma in pixels of the
      blur that the device has yet to apply, 0 for none. V is `views.count`.
    """

    def indices_and_epochs(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return order.batch(int(step), rows)

    def augmented(data: tf.Tensor, label: tf.Tensor, index: tf.Tensor, epoch: tf.Tensor) -> dict:
        image = decode(data)
        shape = tf.shape(image)
        made: list[tuple[tf.Tensor, tf.Tensor]] = []
        for view in range(views.count):
            key = keys.image_key(order.seed, epoch, index, view)
            drawn = draws.draw(key, shape[0], shape[1], views, view)
            # One after the other: the crops of a large photograph take much memory.
            with tf.control_dependencies([image for image, _ in made]):
                made.append(host.random_view(image, drawn, views))
        return {
            "image": to_transfer(tf.stack([view for view, _ in made]), transfer_dtype),
            "label": label,
            "blur_sigma": tf.stack([sigma for _, sigma in made]),
        }

    steps = tf.data.Dataset.range(start_step, stop_step)
    return _stream(source, steps, indices_and_epochs, augmented, len(rows))


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
      "image" (n, image_size, image_size, 3) in `transfer_dtype`, "label" (n,) int32 or (n, C) int8,
      and "mask" (n,) bool. The mask is False where an image stands for another one: the last batch
      is padded with repeated examples, and unreadable images are replaced.
    """
    order = np.arange(len(source)) if order is None else order
    total = len(order)

    def indices_and_masks(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position = int(step) * batch_size + np.asarray(rows, np.int64)
        return order[np.minimum(position, total - 1)], (position < total).astype(np.int64)

    def view(data: tf.Tensor, label: tf.Tensor, index: tf.Tensor, mask: tf.Tensor) -> dict:
        del index
        image = host.eval_view(decode(data), size=image_size, crop_proportion=crop_proportion)
        return {"image": to_transfer(image, transfer_dtype), "label": label, "mask": mask > 0}

    steps = -(-total // batch_size)
    batches = _stream(source, tf.data.Dataset.range(steps), indices_and_masks, view, len(rows))
    with contextlib.closing(batches):
        for step, batch in zip(range(steps), batches, strict=True):
            index, _ = indices_and_masks(np.array(step))
            yield {**batch, "mask": batch["mask"] & source.readable(index)}


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG image from a string scalar to (H, W, 3) uint8."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return image


def to_transfer(image: tf.Tensor, dtype: str) -> tf.Tensor:
    """Converts an image to the dtype in which it is sent to the device.

    Args:
      image: An image or several, float32 in [0, 1].
      dtype: The dtype: 'float32', or 'uint8' for the nearest of 256 levels.

    >>> to_transfer(tf.constant([0.0, 0.5, 1.0]), "uint8").numpy().tolist()
    [0, 128, 255]
    """
    return image if dtype == "float32" else tf.cast(tf.round(image * 255.0), tf.uint8)


def _stream(
    source: Readable,
    steps: Any,
    examples_of: Callable[[np.ndarray], Any],
    make_example: Callable[..., dict],
    n: int,
) -> Batches:
    """Yields batches: images are loaded by the batch, then decoded and augmented in parallel.

    Args:
      source: The images.
      steps: A `tf.data.Dataset` of steps.
      examples_of: A function from a step to the indices of its examples and one more number for
        each of them, the epoch or the mask, both (n,) int64.
      make_example: A function from an encoded image, its label, its index and that number to the
        tensors of an example.
      n: The number of examples of a batch in this process.
    """
    failure: list[BaseException] = []

    def load(step: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            index, epoch_or_mask = examples_of(step)
            images, labels = source.load(index)
        except BaseException as error:
            failure.append(error)  # TensorFlow would only keep the message of the error.
            raise
        return np.array(images, object), labels, index, epoch_or_mask

    def load_in_graph(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        several = source.multilabel
        types = (tf.string, tf.int8 if several else tf.int32, tf.int64, tf.int64)
        shapes = (n,), (n, source.num_classes) if several else (n,), (n,), (n,)
        loaded = tf.numpy_function(load, [step], types, stateful=False)
        return tuple(map(tf.ensure_shape, loaded, shapes))

    plain = tf.autograph.experimental.do_not_convert  # The functions have no Python control flow.
    dataset = steps.map(plain(load_in_graph), num_parallel_calls=2).unbatch()
    turns = Turns()

    def in_turn(data: tf.Tensor, label: tf.Tensor, index: tf.Tensor, number: tf.Tensor) -> dict:
        return turns.take(data, index, lambda: make_example(data, label, index, number))

    dataset = dataset.map(plain(in_turn), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(n, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.deterministic = True
    iterator = dataset.with_options(options).as_numpy_iterator()
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError:
            if failure:
                raise failure[0] from None
            raise
        yield batch
