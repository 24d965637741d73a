"""How many large images are decoded at a time, so that memory does not grow with the threads."""

from __future__ import annotations

from collections.abc import Callable

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

# The numbers of pixels above which images are large or huge. Of the large ones only a few are made
# into examples at a time, and only one of the huge ones.
_LARGE_PIXELS, _HUGE_PIXELS, _LARGE_AT_A_TIME = 2**22, 2**24, 8


class Turns:
    """The turns of large images, of which only few are made into examples at a time.

    So memory is bounded: an image takes up to 8 bytes a pixel while it is decoded, cropped and
    resized. The locks are TensorFlow's, so that an image that waits keeps no thread. They are those
    of the process, whatever the number of its pipelines.
    """

    def __init__(self) -> None:
        names = [f"turn {slot} of large images" for slot in range(1 + _LARGE_AT_A_TIME)]
        self._locks = tf.stack([tf.raw_ops.MutexV2(shared_name=name) for name in names])

    def take(self, pixels: tf.Tensor, index: tf.Tensor, work: Callable[[], tf.Tensor]) -> tf.Tensor:
        """Does the work on an image when it is its turn.

        Args:
          pixels: The number of pixels of the image, an int64 scalar.
          index: The index of the image, an int64 scalar.
          work: The function that makes a tensor of the image.
        """
        waits = pixels > _LARGE_PIXELS
        slot = tf.where(pixels > _HUGE_PIXELS, 0, 1 + tf.cast(index % _LARGE_AT_A_TIME, tf.int32))

        def lock() -> tf.Tensor:
            return tf.raw_ops.MutexLock(mutex=tf.gather(self._locks, slot))

        def none() -> tf.Tensor:
            return tf.raw_ops.EmptyTensorList(
                element_shape=tf.constant(-1), max_num_elements=0, element_dtype=tf.int32
            )

        def let_go() -> tf.Tensor:
            with tf.control_dependencies([tf.raw_ops.ConsumeMutexLock(mutex_lock=held)]):
                return tf.constant(True)

        held = tf.cond(waits, lock, none)
        with tf.control_dependencies([held]):
            made = work()
        with tf.control_dependencies([made]):
            done = tf.cond(waits, let_go, lambda: tf.constant(True))
        with tf.control_dependencies([done]):
            return tf.identity(made)
