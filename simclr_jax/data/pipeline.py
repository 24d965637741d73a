"""(seed, step) → batches: tf.data from the index stream to NumPy arrays on this host."""

from collections.abc import Generator
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_jax.data import augment
from simclr_jax.data.order import batch_examples
from simclr_jax.data.sources import Readable

Batch = dict[str, np.ndarray]
Batches = Generator[Batch, None, None]  # closing it ends its threads

_FOREVER = 2**40  # steps


def train_batches(
    source: Readable,
    *,
    batch_size: int,
    rows: np.ndarray,
    seed: int,
    start_step: int,
    stop_step: int = _FOREVER,
    image_size: int,
    ops: tuple[str, ...],
    strength: float,
    brightness: str = "v2",
    crop_area: tuple[float, float] = (0.08, 1.0),
    blur_on: str = "device",
    transfer_dtype: str = "uint8",
    shuffle_block: int = 1,
    shuffle_window: int = 1,
    views: int = 2,
) -> Batches:
    """Augmented batches from `start_step` on, a function of these arguments and the images alone.

    Args:
      source: of images.
      batch_size: of the global batch, source images.
      rows: which rows of the global batch to produce, ascending.
      seed: of the order and the augmentations.
      start_step, stop_step: first step, and the one after the last.
      image_size: of the views, pixels.
      ops, strength, brightness, crop_area: see `augment.random_view`.
      blur_on: 'device': the batch's blur_sigma is for the step to apply; 'host': applied here.
      transfer_dtype: 'uint8' rounds to 1/255; 'float32' is exact.
      shuffle_block, shuffle_window: see `order.epoch_order`.
      views: of each image, drawn independently.

    Yields:
      {"image": (n, views, size, size, 3) of transfer_dtype, "label": (n,) int32 (-1: none),
      "blur_sigma": (n, views) float32 pixels (0: none)}, n = len(rows).
    """

    def examples(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return batch_examples(
            len(source), int(step), batch_size=batch_size, rows=rows, seed=seed,
            block=shuffle_block, window=shuffle_window,
        )  # fmt: skip

    def augmented(data: tf.Tensor, label: tf.Tensor, index: tf.Tensor, epoch: tf.Tensor) -> dict:
        image = decode(data)
        images, sigmas = zip(
            *(
                augment.random_view(
                    image, augment.image_key(seed, epoch, index, view), size=image_size, ops=ops,
                    strength=strength, brightness=brightness, crop_area=crop_area,
                    blur_here=blur_on == "host",
                )
                for view in range(views)
            ),
            strict=True,
        )  # fmt: skip
        return {
            "image": to_transfer(tf.stack(images), transfer_dtype),
            "label": label,
            "blur_sigma": tf.stack(sigmas),
        }

    steps = tf.data.Dataset.range(start_step, stop_step)
    return _run(source, steps, examples, augmented, len(rows))


def eval_batches(
    source: Readable,
    *,
    batch_size: int,
    rows: np.ndarray,
    image_size: int,
    transfer_dtype: str = "uint8",
    order: np.ndarray | None = None,
) -> Batches:
    """Every example once, in order (or those of `order`), in its evaluation view.

    Yields:
      {"image": (n, size, size, 3), "label": (n,) int32, "mask": (n,) bool}, n = len(rows). The
      last batch is padded to batch_size with examples whose mask is False.
    """
    order = np.arange(len(source)) if order is None else order
    total = len(order)

    def examples(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position = int(step) * batch_size + np.asarray(rows, np.int64)
        return order[np.minimum(position, total - 1)], (position < total).astype(np.int64)

    def view(data: tf.Tensor, label: tf.Tensor, index: tf.Tensor, real: tf.Tensor) -> dict:
        del index
        image = augment.eval_view(decode(data), size=image_size)
        return {"image": to_transfer(image, transfer_dtype), "label": label, "mask": real > 0}

    steps = tf.data.Dataset.range(-(-total // batch_size))
    return _run(source, steps, examples, view, len(rows))


def decode(data: tf.Tensor) -> tf.Tensor:
    """Encoded bytes to (H, W, 3) float32 in [0, 1]."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return tf.image.convert_image_dtype(image, tf.float32)


def to_transfer(image: tf.Tensor, dtype: str) -> tf.Tensor:
    """What travels to the device: [0, 1] floats, or their nearest of 256 levels."""
    return image if dtype == "float32" else tf.cast(tf.round(image * 255.0), tf.uint8)


def _run(source: Readable, steps: Any, examples: Any, example_fn: Any, n: int) -> Batches:
    """Index stream → load (a call a batch) → decode and augment in parallel → batch → prefetch."""
    failure: list[BaseException] = []

    def load(step: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            index, second = examples(step)
            images, labels = source.load(index)
        except BaseException as error:
            failure.append(error)  # TensorFlow would turn it into text
            raise
        return np.array(images, object), labels, index, second

    def load_in_graph(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        types = (tf.string, tf.int32, tf.int64, tf.int64)
        loaded = tf.numpy_function(load, [step], types, stateful=False)
        return tuple(tf.ensure_shape(tensor, (n,)) for tensor in loaded)

    plain = tf.autograph.experimental.do_not_convert  # there is no Python to rewrite as a graph
    dataset = steps.map(plain(load_in_graph), num_parallel_calls=2).unbatch()
    dataset = dataset.map(plain(example_fn), num_parallel_calls=tf.data.AUTOTUNE)
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
