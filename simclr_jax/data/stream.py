"""The stream of batches that tf.data makes of images, one by one or as a whole."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from simclr_jax.augment import draws
from simclr_jax.augment.whole import TOGETHER, Whole
from simclr_jax.data import windows
from simclr_jax.data.images import ENCODED
from simclr_jax.data.readable import Readable
from simclr_jax.data.turns import Turns

with epy.lazy_imports():
    import tensorflow as tf

Batch = dict[str, np.ndarray]  # The arrays of this process's rows of a batch, by name.
Batches = Generator[Batch, None, None]  # Closing the generator ends the threads of tf.data.
Keep = Callable[[Callable], Callable]  # From a function to the same, whose error is kept.


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


def stream(source: Readable, steps: range, making: Making, n: int) -> Batches:
    """Yields "image" and "label" of batches of n examples, which tf.data makes.

    Args:
      source: The images.
      steps: The steps of the batches.
      making: How examples are made of images.
      n: The number of examples of a batch.
    """
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


def _one_by_one(source: Readable, steps: Any, making: Making, n: int, kept: Keep) -> Any:
    """Images are loaded by the batch, decoded and made one by one, and ended by a few of them."""
    turns, channels = Turns(), source.channels

    load, numbers = _load(source, making, n, kept)

    def example(loaded: Any, label: Any, flat: Any) -> Any:
        data, decoded, size, part, index = loaded
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
    dataset = steps.map(plain(load), num_parallel_calls=2).unbatch()
    dataset = dataset.map(plain(example), num_parallel_calls=tf.data.AUTOTUNE)
    if making.whole is not None and making.whole.can_end:
        return _ended(dataset, making.whole, kept).batch(n, True)
    return dataset.map(plain(lambda made, label, late: (made, label))).batch(n, True)


def _load(
    source: Readable, making: Making, n: int, kept: Keep
) -> tuple[Callable[[tf.Tensor], Any], Numbers]:
    """The function of TensorFlow from a step to its images, their labels and their numbers.

    The numbers are flat; how they are nested is returned beside it.
    """
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
        return data, decoded, sizes, parts, index, labels, *arrays

    image = [((), tf.string), ((), tf.bool), ((2,), tf.int64), ((4,), tf.int32), ((), tf.int64)]
    specs = [*image, _label_spec(source), *((array.shape[1:], array.dtype) for array in arrays)]

    def in_graph(step: tf.Tensor) -> Any:
        made = tf.numpy_function(load, [step], [dtype for _, dtype in specs], stateful=False)
        loaded = [
            tf.ensure_shape(array, (n, *shape))
            for array, (shape, _) in zip(made, specs, strict=True)
        ]
        few = len(image)
        return tuple(loaded[:few]), loaded[few], tuple(loaded[few + 1 :])

    return in_graph, numbers


def _ended(dataset: Any, whole: Whole, kept: Keep) -> Any:
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


def _whole(source: Readable, steps: Any, making: Making, n: int, kept: Keep) -> Any:
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
