"""(seed, step) → batches: tf.data from the index stream to NumPy arrays on this host."""

from collections.abc import Generator
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_jax.augment import draws, host
from simclr_jax.augment.draws import Views
from simclr_jax.data.order import Order
from simclr_jax.data.source import Readable

Batch = dict[str, np.ndarray]
Batches = Generator[Batch, None, None]  # closing it ends its threads


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
    """Augmented batches from `start_step` on, a function of these arguments and the images alone.

    Args:
      source: The images.
      order: Which example comes when; its seed is that of the augmentations too.
      views: How the views are made.
      rows: Which rows of the global batch to produce, ascending.
      start_step: The first step.
      stop_step: The step after the last one.
      transfer_dtype: The dtype in which images travel: 'uint8' rounds to 1/255, 'float32' is exact.

    Yields:
      {"image": (n, V, size, size, 3) of transfer_dtype, "label": (n,) int32 (-1: none),
      "blur_sigma": (n, V) float32 pixels that the device is to blur by (0: not at all)}, with
      n = len(rows) and V = views.count.
    """

    def examples(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return order.batch(int(step), rows)

    def augmented(data: tf.Tensor, label: tf.Tensor, index: tf.Tensor, epoch: tf.Tensor) -> dict:
        image = decode(data)
        shape = tf.shape(image)
        keys = [draws.image_key(order.seed, epoch, index, view) for view in range(views.count)]
        drawn = [draws.draw(key, shape[0], shape[1], views) for key in keys]
        made = [host.random_view(image, draw, views) for draw in drawn]
        return {
            "image": to_transfer(tf.stack([view for view, _ in made]), transfer_dtype),
            "label": label,
            "blur_sigma": tf.stack([sigma for _, sigma in made]),
        }

    steps = tf.data.Dataset.range(start_step, stop_step)
    return _stream(source, steps, examples, augmented, len(rows))


def eval_batches(
    source: Readable,
    *,
    batch_size: int,
    rows: np.ndarray,
    image_size: int,
    transfer_dtype: str,
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
        image = host.eval_view(decode(data), size=image_size)
        return {"image": to_transfer(image, transfer_dtype), "label": label, "mask": real > 0}

    steps = tf.data.Dataset.range(-(-total // batch_size))
    return _stream(source, steps, examples, view, len(rows))


def decode(data: tf.Tensor) -> tf.Tensor:
    """Encoded bytes to (H, W, 3) float32 in [0, 1]."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return tf.image.convert_image_dtype(image, tf.float32)


def to_transfer(image: tf.Tensor, dtype: str) -> tf.Tensor:
    """What travels to the device: [0, 1] floats, or their nearest of 256 levels."""
    return image if dtype == "float32" else tf.cast(tf.round(image * 255.0), tf.uint8)


def _stream(source: Readable, steps: Any, examples: Any, example_fn: Any, n: int) -> Batches:
    """Index stream → load (a call a batch) → decode and augment in parallel → batch → prefetch."""
    failure: list[BaseException] = []

    def load(step: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            index, extra = examples(step)
            images, labels = source.load(index)
        except BaseException as error:
            failure.append(error)  # TensorFlow would turn it into text
            raise
        return np.array(images, object), labels, index, extra

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
