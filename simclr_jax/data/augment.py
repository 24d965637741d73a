"""SimCLR's augmentations, one image at a time, as stateless TensorFlow operations.

Images are (H, W, 3) float32 in [0, 1]. Every draw takes a seed of shape (2,); `image_key` makes
one of an example's identity and `fold` another of it for each operation, so that an example is
augmented the same way wherever and whenever it is loaded, and no two draws share a seed.

Reference: Chen et al. 2020, appendix A (arXiv 2002.05709); the crop's law, the resize and the
jitter's rules are those of the authors' code.
"""

import tensorflow as tf

OPS = ("crop", "flip", "jitter", "grey", "blur")  # in the order in which they are applied
BRIGHTNESS = ("v1", "v2")

FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
GREY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)  # pixels
CROP_ASPECT = (3 / 4, 4 / 3)  # times the target's own
EVAL_CROP_PROPORTION = 0.875

# What `fold` adds for each draw; two operations that share a constant would be correlated.
_CROP, _GATES, _JITTER, _ORDER, _BLUR = range(5)


def image_key(seed: int, epoch: tf.Tensor, index: tf.Tensor, view: int) -> tf.Tensor:
    """The seed (2,) int64 of one view of one example in one epoch.

    The four numbers are packed, not hashed: seed and epoch below 2³¹, index below 2⁴⁷, view below
    2⁸, so no two examples, epochs or views can collide.
    """
    high = tf.constant(seed * 2**32, tf.int64) + tf.cast(epoch, tf.int64)
    low = tf.cast(index, tf.int64) * 2**16 + view * 2**8
    return tf.stack([high, low])


def fold(key: tf.Tensor, draw: int) -> tf.Tensor:
    """The seed of draw number `draw` (below 2⁸) of an example's key."""
    return key + tf.constant([0, draw], tf.int64)


def uniform(seed: tf.Tensor, shape: tuple[int, ...], low: float, high: float) -> tf.Tensor:
    """float32 draws from U(low, high); the generator is named, since the default may change."""
    return tf.random.stateless_uniform(shape, seed, low, high, alg="philox")


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Bicubic (Keys, a = -0.5) to (size, size), half-pixel centres, no antialiasing, unclipped."""
    image = tf.image.resize(image, (size, size), method="bicubic", antialias=False)
    return tf.ensure_shape(image, (size, size, 3))


def crop_box(
    height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float]
) -> tf.Tensor:
    """A random crop (y, x, height, width) int32 for a square target.

    Area a fraction U(area) of the image, aspect U(3/4, 4/3), 100 attempts, then the whole image:
    the law of TensorFlow's sample_distorted_bounding_box.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.stack([height, width, 3]),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.1,
        aspect_ratio_range=CROP_ASPECT,
        area_range=area,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], axis=0)


def random_resized_crop(
    image: tf.Tensor, seed: tf.Tensor, *, size: int, area: tuple[float, float]
) -> tf.Tensor:
    """Crops by `crop_box` and resizes to (size, size, 3)."""
    shape = tf.shape(image)
    y, x, height, width = tf.unstack(crop_box(shape[0], shape[1], seed, area=area))
    return resize(image[y : y + height, x : x + width], size)


def adjust_brightness(image: tf.Tensor, factor: tf.Tensor, *, version: str = "v2") -> tf.Tensor:
    """Multiplies by `factor` (v2, as the authors' later code) or adds it (v1)."""
    return image * factor if version == "v2" else image + factor


def greyscale(image: tf.Tensor) -> tf.Tensor:
    """Luma in all three channels."""
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))


def color_jitter(
    image: tf.Tensor, seed: tf.Tensor, order_seed: tf.Tensor, *, strength: float, version: str
) -> tf.Tensor:
    """Brightness, contrast, saturation and hue in random order, clipped to [0, 1] after each.

    Ranges at strength s: 1 ± 0.8s (never below 0) for the first three, ± 0.2s of the colour
    circle for hue; v1 brightness adds U(-0.8s, 0.8s) instead.
    """
    spread = 0.8 * strength
    draws = uniform(seed, (4,), -1.0, 1.0)
    low = tf.maximum(1.0 - spread, 0.0)
    factors = low + (draws + 1.0) / 2.0 * (1.0 + spread - low)
    bright = factors[0] if version == "v2" else draws[0] * spread

    def apply(step: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        image = tf.switch_case(
            step,
            [
                lambda: adjust_brightness(image, bright, version=version),
                lambda: tf.image.adjust_contrast(image, factors[1]),
                lambda: tf.image.adjust_saturation(image, factors[2]),
                lambda: tf.image.adjust_hue(image, draws[3] * 0.2 * strength),
            ],
        )
        return tf.clip_by_value(image, 0.0, 1.0)

    order = tf.argsort(uniform(order_seed, (4,), 0.0, 1.0))
    for position in range(4):
        image = apply(order[position], image)
    return image


def blur_taps(size: int) -> int:
    """Length of the blur's kernel for images of `size` px: a tenth of it, made odd."""
    return 2 * (size // 10 // 2) + 1


def gaussian_blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Separable Gaussian blur with zero padding; sigma in pixels, 0 leaves the image as it is."""
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


def random_blur_sigma(seed: tf.Tensor) -> tf.Tensor:
    """U(0.1, 2) pixels with probability 1/2, else 0: no blur."""
    draws = uniform(seed, (2,), 0.0, 1.0)
    low, high = BLUR_SIGMA
    return tf.where(draws[0] < BLUR_PROBABILITY, low + draws[1] * (high - low), 0.0)


def random_view(
    image: tf.Tensor,
    key: tf.Tensor,
    *,
    size: int,
    ops: tuple[str, ...],
    strength: float,
    brightness: str,
    crop_area: tuple[float, float],
    blur_here: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One random view t(x).

    Args:
      image: (H, W, 3) float32 in [0, 1].
      key: of `image_key`.
      size: of the view, pixels.
      ops: which of `OPS` to apply; without 'crop' the image is resized whole.
      strength: of the colour distortion; 0 turns jitter and grey off, as in the authors' code.
      brightness: 'v1' or 'v2'.
      crop_area: smallest and largest fraction of the image.
      blur_here: blur now; otherwise the returned sigma is for the step to apply.

    Returns:
      The view (size, size, 3) float32 in [0, 1], and the sigma in pixels still to be applied.
    """
    if "crop" in ops:
        image = random_resized_crop(image, fold(key, _CROP), size=size, area=crop_area)
    else:
        image = resize(image, size)
    flip, jitter, grey = tf.unstack(uniform(fold(key, _GATES), (3,), 0.0, 1.0))
    if "flip" in ops:
        image = tf.cond(
            flip < FLIP_PROBABILITY, lambda: tf.image.flip_left_right(image), lambda: image
        )
    if "jitter" in ops and strength > 0:
        seeds = fold(key, _JITTER), fold(key, _ORDER)
        image = tf.cond(
            jitter < JITTER_PROBABILITY,
            lambda: color_jitter(image, *seeds, strength=strength, version=brightness),
            lambda: image,
        )
    if "grey" in ops and strength > 0:
        image = tf.cond(grey < GREY_PROBABILITY, lambda: greyscale(image), lambda: image)
    image = tf.clip_by_value(image, 0.0, 1.0)
    sigma = random_blur_sigma(fold(key, _BLUR)) if "blur" in ops else tf.constant(0.0)
    if blur_here:
        image, sigma = tf.clip_by_value(gaussian_blur(image, sigma), 0.0, 1.0), tf.constant(0.0)
    return image, sigma


def eval_view(image: tf.Tensor, *, size: int) -> tf.Tensor:
    """The view that evaluation uses: central crop of 87.5 %, resized, clipped to [0, 1].

    The crop keeps the (square) target's aspect. Up to 32 px there is no crop: small images are
    all subject.
    """
    if size > 32:
        shape = tf.shape(image)
        side = tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
        crop = tf.cast(tf.math.rint(EVAL_CROP_PROPORTION * side), tf.int32)
        y, x = (shape[0] - crop + 1) // 2, (shape[1] - crop + 1) // 2
        image = image[y : y + crop, x : x + crop]
    elif image.shape[0] == size and image.shape[1] == size:
        return image
    return tf.clip_by_value(resize(image, size), 0.0, 1.0)
