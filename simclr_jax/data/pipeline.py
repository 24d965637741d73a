"""The input pipeline: batches of NumPy arrays on this host, from a source and an order.

The batch of a step is a function of the seed and the step, so a resumed run sees the same batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from simclr_jax.augment import device, draws, host, keys
from simclr_jax.augment.draws import Views
from simclr_jax.augment.whole import TOGETHER, Whole
from simclr_jax.data import windows
from simclr_jax.data.images import ENCODED
from simclr_jax.data.order import Order, Picked
from simclr_jax.data.readable import Readable
from simclr_jax.data.turns import Turns

with epy.lazy_imports():
    import tensorflow as tf

Batch = dict[str, np.ndarray]  # The arrays of this process's rows of a batch, by name.
Batches = Generator[Batch, None, None]  # Closing the generator ends the threads of tf.data.


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

    def examples_of(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return order.batch(int(step), rows)

    def keys_of(index: np.ndarray, epoch: np.ndarray) -> list[np.ndarray]:
        return [keys.image_keys(order.seed, epoch, index, view) for view in range(views.count)]

    ops = [
        views.places(view).early if whole.can_end else views.on_host(view)
        for view in range(views.count)
    ]

    def numbers_of(
        index: np.ndarray, epoch: np.ndarray, sizes: np.ndarray, windowed: np.ndarray
    ) -> tuple[np.ndarray, Numbers]:
        drawn = [
            draws.draw(key, sizes[:, 0], sizes[:, 1], views, view, ops[view])
            for view, key in enumerate(keys_of(index, epoch))
        ]
        late = whole.numbers(index, epoch) if whole.can_end else {}
        parts, early = _windows(drawn, ops, sizes, windowed)
        return parts, Numbers(early, late)

    def augmented(image: tf.Tensor, drawn: list[draws.Draw]) -> tf.Tensor:
        made = _views(image, drawn, ops, views)
        if whole.can_end:
            return made
        exact = transfer_dtype == "float32" and views.left_to_device  # The device clips it.
        return made if exact else to_transfer(tf.clip_by_value(made, 0.0, 1.0), transfer_dtype)

    steps = range(start_step, stop_step)
    making = Making(examples_of, numbers_of, augmented, whole)
    batches = _stream(source, steps, making, len(rows))
    with contextlib.closing(batches):
        for step, batch in zip(steps, batches, strict=True):
            numbers = device.numbers_of(on_device, keys_of(*examples_of(np.array(step))), views)
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
    batches = _stream(source, steps, Making(indices_and_masks, numbers_of, view), len(rows))
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


class Numbers(NamedTuple):
    """The random numbers of the images of a batch, with n rows each.

    Attributes:
      early: The draws of each view that an image is made with.
      late: The numbers of the operations at the end of its views; see `Whole.numbers`.
    """

    early: list[draws.Draw]
    late: dict[str, np.ndarray]


class Making(NamedTuple):
    """How the images of a batch are made into examples.

    Attributes:
      examples_of: A function from a step to the indices of its examples and one more number for
        each of them, the epoch or the mask, both (n,) int64.
      numbers_of: A function from these, the sizes (n, 2) int of the images, height and width, and
        whether a window of each can be decoded alone, (n,) bool, to the windows, from `windows`,
        and the random numbers.
      make: A function from an image (H, W, C) uint8 and its early numbers to an example, a tensor.
      whole: What makes whole batches of small images of one size, and ends the examples of others
        if it can; None: they are made one by one.
    """

    examples_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    numbers_of: Callable[
        [np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, Numbers]
    ]
    make: Callable[[tf.Tensor, Any], tf.Tensor]
    whole: Whole | None = None


def _stream(source: Readable, steps: range, making: Making, n: int) -> Batches:
    """Yields "image" and "label" of batches of n examples, and the steps of tf.data behind them."""
    failure: list[BaseException] = []

    def kept(function: Callable) -> Callable:
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except BaseException as error:
                failure.append(error)  # TensorFlow would only keep the message of the error.
                raise

        return run

    can = making.whole is not None and making.whole.can_make
    chosen = _whole if can and source.small_of_one_size() else _one_by_one
    dataset = chosen(source, tf.data.Dataset.range(steps.start, steps.stop), making, n, kept)
    options = tf.data.Options()
    options.deterministic = True
    iterator = dataset.prefetch(2).with_options(options).as_numpy_iterator()
    while True:
        try:
            image, label = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError:
            if failure:
                raise failure[0] from None
            raise
        yield {"image": image, "label": label}


def _one_by_one(
    source: Readable, steps: Any, making: Making, n: int, kept: Callable[[Callable], Callable]
) -> Any:
    """Images are loaded by the batch, decoded and made one by one, and ended by a few of them."""
    label = _label_spec(source)
    nothing = np.zeros(1, np.int64)
    _, numbers = making.numbers_of(nothing, nothing, np.ones((1, 2), np.int64), nothing > 0)
    arrays = [np.asarray(array) for array in tf.nest.flatten(numbers)]

    @kept
    def load(step: np.ndarray) -> tuple[np.ndarray, ...]:
        index, number = making.examples_of(step)
        images, labels = source.load(index)
        sizes = np.array([(image.height, image.width) for image in images])
        data = np.array([image.data for image in images], object)
        decoded = np.array([image.decoded for image in images])
        windowed = np.array([image.is_jpeg for image in images])
        parts, drawn = making.numbers_of(index, number, sizes, windowed)
        arrays = map(np.asarray, tf.nest.flatten(drawn))
        return data, decoded, sizes, parts, labels, index, *arrays

    head = [((), tf.string), ((), tf.bool), ((2,), tf.int64), ((4,), tf.int32), label]
    head = [*head, ((), tf.int64)]
    specs = [*head, *((array.shape[1:], array.dtype) for array in arrays)]

    def load_in_graph(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        loaded = tf.numpy_function(load, [step], [dtype for _, dtype in specs], stateful=False)
        return tuple(
            tf.ensure_shape(array, (n, *shape))
            for array, (shape, _) in zip(loaded, specs, strict=True)
        )

    turns, channels = Turns(), source.channels

    def example(
        data: Any, decoded: Any, size: Any, part: Any, label: Any, index: Any, *flat: Any
    ) -> Any:
        own = tf.nest.pack_sequence_as(numbers, flat)

        def made() -> tf.Tensor:
            if channels in ENCODED:
                image = tf.cond(
                    decoded,
                    lambda: _pixels(data, size, channels),
                    lambda: windows.decode(data, part, size, channels),
                )
            else:
                image = _pixels(data, size, channels)
            return making.make(image, own.early)

        return turns.take(tf.reduce_prod(size), index, made), label, own.late

    plain = tf.autograph.experimental.do_not_convert  # The functions have no Python control flow.
    dataset = steps.map(plain(load_in_graph), num_parallel_calls=2).unbatch()
    dataset = dataset.map(plain(example), num_parallel_calls=tf.data.AUTOTUNE)
    if making.whole is not None and making.whole.can_end:
        return _ended(dataset, making.whole, kept).batch(n, True)
    return dataset.map(plain(lambda made, label, late: (made, label))).batch(n, True)


def _ended(dataset: Any, whole: Whole, kept: Callable[[Callable], Callable]) -> Any:
    """Examples with the operations at the end of their views, which a few have at a time.

    Args:
      dataset: Examples, their labels, and the numbers of these operations by their names.
      whole: What applies the operations.
      kept: The function that keeps the error of a function.
    """

    def end(made: tf.Tensor, label: tf.Tensor, late: dict[str, tf.Tensor]) -> Any:
        names = [*late]
        run = kept(lambda views, *arrays: whole.end(views, dict(zip(names, arrays, strict=True))))
        arguments, dtype = [made, *late.values()], tf.as_dtype(whole.dtype)
        ended = tf.numpy_function(run, arguments, dtype, stateful=False)
        return tf.ensure_shape(ended, (None, *whole.shape)), label

    plain = tf.autograph.experimental.do_not_convert
    few = dataset.batch(TOGETHER).map(plain(end), num_parallel_calls=tf.data.AUTOTUNE)
    return few.unbatch()


def _whole(
    source: Readable, steps: Any, making: Making, n: int, kept: Callable[[Callable], Callable]
) -> Any:
    """Batches of small images of one size are made as a whole from their pixels on.

    A batch that has another image among them is made image by image; its numbers are the same.
    """
    whole = making.whole
    assert whole is not None

    @kept
    def make(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index, epoch = making.examples_of(step)
        pixels, labels = source.load_pixels(index)
        if isinstance(pixels, np.ndarray):
            return whole.make(pixels, index, epoch), labels
        sizes = np.array([image.shape[:2] for image in pixels])
        _, numbers = making.numbers_of(index, epoch, sizes, np.zeros(len(sizes), bool))
        views = []
        for row, image in enumerate(pixels):
            own = tf.nest.map_structure(lambda x, row=row: tf.constant(x[row]), numbers.early)
            views.append(making.make(tf.constant(image), own))
        made = np.stack(views)
        return (whole.end(made, numbers.late) if whole.can_end else made), labels

    shape, label_dtype = _label_spec(source)

    def make_in_graph(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        types = tf.as_dtype(whole.dtype), label_dtype
        views, labels = tf.numpy_function(make, [step], types, stateful=False)
        return tf.ensure_shape(views, (n, *whole.shape)), tf.ensure_shape(labels, (n, *shape))

    plain = tf.autograph.experimental.do_not_convert
    return steps.map(plain(make_in_graph), num_parallel_calls=tf.data.AUTOTUNE)


def _label_spec(source: Readable) -> tuple[tuple[int, ...], Any]:
    """The shape and the dtype of the label of an image."""
    return ((source.num_classes,), tf.int8) if source.multilabel else ((), tf.int32)


def _pixels(data: tf.Tensor, size: tf.Tensor, channels: int) -> tf.Tensor:
    """An image (H, W, C) uint8 from its bytes in a string scalar and its height and width."""
    return tf.reshape(tf.io.decode_raw(data, tf.uint8), (size[0], size[1], channels))
