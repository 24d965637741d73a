"""Augmentations that the host applies to an image with TensorFlow, in tf.data or eagerly.

Images are (H, W, C) float32 in [0, 1]. An image that is cropped or resized may be uint8 as well, as
it was decoded: only what is made of it becomes floats. Other images than those of C = 3, red, green
and blue, keep their saturation and their hue, and are not made grey.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709); the resize is that of the authors' code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from etils import epy

from simclr_jax.augment import policy_ops, study_ops
from simclr_jax.augment.draws import Draw, Jitter, Views, blur_taps

with epy.lazy_imports():
    import tensorflow as tf

EVAL_CROP_PROPORTION = 0.875  # The side of the evaluation crop over the image's shorter side.
# TensorFlow resizes floats faster than bytes. Above this number of pixels the conversion takes
# longer than it gains, and memory.
_CONVERTED_PIXELS = 2**17


def keep_off_accelerators() -> None:
    """Keeps TensorFlow off all accelerators, whose memory is JAX's.

    It must be called before TensorFlow's first operation.
    """
    for kind in ("GPU", "TPU"):
        with contextlib.suppress(RuntimeError):  # TensorFlow has run operations already.
            tf.config.set_visible_devices([], kind)


def random_view(image: tf.Tensor, draw: Draw, ops: Sequence[str], views: Views) -> tf.Tensor:
    """Makes one view of an image from its random numbers, but for the operations of the batch.

    Args:
      image: The image (H, W, C), float32 in [0, 1] or uint8.
      draw: The random numbers of the operations, one image's of those from `draws.draw`.
      ops: The names of the operations, in their order.
      views: The settings of the augmentation.

    Returns:
      The view (size, size, C), float32; it can leave the range [0, 1].
    """
    if tuple(ops[:1]) not in (("crop",), ("shared_crop",)):
        image = resize(image, views.size)
    for name in ops:
        image = OPS[name](image, draw[name], views)
    return tf.ensure_shape(image, (views.size, views.size, views.channels))


def resize(image: tf.Tensor, size: int, box: tf.Tensor | None = None) -> tf.Tensor:
    """Resizes an image, or a crop of it, by bicubic interpolation, as the authors' code does.

    The interpolation is that of Keys (a = -0.5) with half-pixel centres and without antialiasing.
    It can leave the range [0, 1].

    Args:
      image: The image (H, W, C), float32 in [0, 1] or uint8.
      size: The height and the width of the result, in pixels.
      box: The crop (y, x, height, width) in pixels, (4,) int32, or None for the full image.

    Returns:
      The image (size, size, C), float32.
    """
    shape = tf.shape(image)
    y, x, height, width = (0, 0, shape[0], shape[1]) if box is None else tf.unstack(box)

    part = image[y : y + height, x : x + width]
    bicubic = partial(tf.image.resize, size=(size, size), method="bicubic", antialias=False)
    made = tf.cond(
        tf.logical_and(height * width > _CONVERTED_PIXELS, image.dtype == tf.uint8),
        lambda: bicubic(part) * (1.0 / 255.0),
        lambda: bicubic(tf.image.convert_image_dtype(part, tf.float32)),
    )
    return tf.ensure_shape(made, (size, size, image.shape[-1]))


def crop_and_resize(image: tf.Tensor, box: tf.Tensor, views: Views) -> tf.Tensor:
    """Crops an image and resizes the crop to the size of a view.

    Args:
      image: The image (H, W, C), float32 in [0, 1] or uint8.
      box: The crop (y, x, height, width) in pixels, (4,) int32.
      views: The settings of the augmentation.
    """
    return resize(image, views.size, box)


def flip(image: tf.Tensor, flipped: tf.Tensor, views: Views) -> tf.Tensor:
    """Flips an image from left to right if a bool scalar is true.

    Args:
      image: The image (H, W, C), float32.
      flipped: Whether to flip the image, a bool scalar.
      views: The settings of the augmentation, which are not used.
    """
    return tf.cond(flipped, lambda: tf.image.flip_left_right(image), lambda: image)


def color_jitter(image: tf.Tensor, draw: Jitter, views: Views) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue in the drawn order, if the draw says so.

    The image is clipped to [0, 1] after each of them.

    Args:
      image: The image (H, W, C), float32.
      draw: The random numbers, from `draws.jitter`.
      views: The settings of the augmentation.
    """

    of_colours = views.channels == 3

    def apply(step: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        image = tf.switch_case(
            step,
            [
                lambda: adjust_brightness(image, draw.brightness, version=views.brightness),
                lambda: tf.image.adjust_contrast(image, draw.contrast),
                lambda: tf.image.adjust_saturation(image, draw.saturation) if of_colours else image,
                lambda: tf.image.adjust_hue(image, draw.hue) if of_colours else image,
            ],
        )
        return tf.clip_by_value(image, 0.0, 1.0)

    def jittered() -> tf.Tensor:
        result = image
        for position in range(4):
            result = apply(draw.order[position], result)
        return result

    return tf.cond(draw.applied, jittered, lambda: image)


def adjust_brightness(image: tf.Tensor, factor: tf.Tensor, *, version: str) -> tf.Tensor:
    """Changes the brightness of an image.

    Args:
      image: The image (H, W, C), float32.
      factor: The factor or the summand, a float32 scalar.
      version: 'v2' to multiply by the factor, as the authors' later code does; 'v1' to add it.

    >>> image = tf.fill((1, 1, 3), 0.5)
    >>> [adjust_brightness(image, 0.25, version=version).numpy().max() for version in ("v1", "v2")]
    [np.float32(0.75), np.float32(0.125)]
    """
    return image * factor if version == "v2" else image + factor


def grey(image: tf.Tensor, applied: tf.Tensor, views: Views) -> tf.Tensor:
    """Makes an image grey if a bool scalar is true.

    Args:
      image: The image (H, W, C), float32.
      applied: Whether to make the image grey, a bool scalar.
      views: The settings of the augmentation, which are not used.
    """
    return tf.cond(applied, lambda: greyscale(image), lambda: image)


def greyscale(image: tf.Tensor) -> tf.Tensor:
    """The luma of an image (H, W, 3), in all three channels."""
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))


def blur(image: tf.Tensor, sigma: tf.Tensor, views: Views) -> tf.Tensor:
    """Clips an image to [0, 1] and blurs it; see `gaussian_blur`.

    Args:
      image: The image (S, S, C), float32.
      sigma: The sigma in pixels, a float32 scalar; 0 for no blur.
      views: The settings of the augmentation, which are not used.
    """
    return gaussian_blur(tf.clip_by_value(image, 0.0, 1.0), sigma)


# The functions that apply the draw of each operation, and of each policy.
OPS: dict[str, Callable[[tf.Tensor, Any, Views], tf.Tensor]] = {
    "crop": crop_and_resize,
    "shared_crop": crop_and_resize,
    "flip": flip,
    "jitter": color_jitter,
    "grey": grey,
    "blur": blur,
    "cutout": study_ops.cutout,
    "rotate": study_ops.rotate,
    "noise": study_ops.noise,
    "sobel": study_ops.sobel,
    "equalize": study_ops.equalize,
    "solarize": study_ops.solarize,
    "motion_blur": study_ops.motion_blur,
    "autoaugment": policy_ops.policy,
    "randaugment": policy_ops.policy,
}


def gaussian_blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Applies a separable Gaussian blur with zero padding.

    Args:
      image: The image (S, S, C), float32.
      sigma: The sigma in pixels, a float32 scalar; 0 leaves the image unchanged.

    Reference: Chen et al. 2020, appendix A (arXiv 2002.05709).
    """
    size = image.shape[0]
    offsets = tf.range(size, dtype=tf.float32)
    distance = tf.abs(offsets[:, None] - offsets[None, :])
    radius = blur_taps(size) // 2
    tap = tf.range(-radius, radius + 1, dtype=tf.float32)
    exponent = -1.0 / (2.0 * tf.maximum(sigma, 1e-6) ** 2)
    weight = tf.exp(distance**2 * exponent) / tf.reduce_sum(tf.exp(tap**2 * exponent))
    band = tf.where(distance <= radius, weight, 0.0)
    blurred = tf.einsum("ij,jwc->iwc", band, image)
    blurred = tf.einsum("ij,hjc->hic", band, blurred)
    return tf.where(sigma > 0.0, blurred, image)


def eval_view(
    image: tf.Tensor, *, size: int, crop_proportion: float = EVAL_CROP_PROPORTION
) -> tf.Tensor:
    """The view of an image for evaluation: a central square crop, resized.

    For views of up to 32 pixels there is no crop, since the subject fills such small images.

    Args:
      image: The image (H, W, C), float32 in [0, 1] or uint8.
      size: The height and the width of the view, in pixels.
      crop_proportion: The side of the crop over the shorter side of the image, above 0 to 1.

    Returns:
      The view (size, size, C), float32, clipped to [0, 1].
    """
    if size > 32:
        shape = tf.shape(image)
        side = tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
        crop = tf.cast(tf.math.rint(crop_proportion * side), tf.int32)
        y, x = (shape[0] - crop + 1) // 2, (shape[1] - crop + 1) // 2
        return tf.clip_by_value(resize(image, size, tf.stack([y, x, crop, crop])), 0.0, 1.0)
    if image.shape[0] == size and image.shape[1] == size:
        return tf.image.convert_image_dtype(image, tf.float32)
    return tf.clip_by_value(resize(image, size), 0.0, 1.0)
