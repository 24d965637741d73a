"""Augmentations: eager against inside a dataset, laws against NumPy, draws against each other."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from simclr_jax.data import augment

ALL = {
    "size": 16, "ops": augment.OPS, "strength": 1.0, "brightness": "v2",
    "crop_area": (0.08, 1.0), "blur_here": True,
}  # fmt: skip


def image_of(rng, height=40, width=50):
    return tf.constant(rng.uniform(size=(height, width, 3)), tf.float32)


def keys(count, view=0, seed=0):
    """Seeds of `count` examples of one epoch."""
    return [augment.image_key(seed, tf.constant(0), tf.constant(i), view) for i in range(count)]


def mapped(fn, count):
    """fn(index) for every index, run inside a tf.data map."""
    dataset = tf.data.Dataset.range(count).map(fn, num_parallel_calls=2)
    return np.stack(list(dataset.as_numpy_iterator()))


def test_view_in_a_dataset_equals_the_eager_one(rng):
    image = image_of(rng)

    def view(i):
        return augment.random_view(image, augment.image_key(1, 2, i, 0), **ALL)[0]

    inside = mapped(view, 16)
    eager = np.stack([view(tf.constant(i, tf.int64)).numpy() for i in range(16)])
    np.testing.assert_allclose(inside, eager, atol=1e-6)
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert np.std(inside, axis=0).max() > 0.1  # examples differ


def test_keys_never_collide():
    combinations = [
        (seed, epoch, index, view)
        for seed in (0, 1, 2**31 - 1)
        for epoch in (0, 1, 2**31 - 1)
        for index in (0, 1, 255, 256, 2**40)
        for view in (0, 1, 255)
    ]
    seen = {
        tuple(augment.fold(augment.image_key(s, tf.constant(e, tf.int64), i, v), draw).numpy())
        for s, e, i, v in combinations
        for draw in range(5)
    }
    assert len(seen) == 5 * len(combinations)


def test_draws_of_operations_and_views_are_uncorrelated():
    """Pairwise |r| < 0.05 over 4000 examples; 1/sqrt(4000) is 0.016."""

    def draws(i):
        values = []
        for view in range(2):
            key = augment.image_key(0, 0, i, view)
            for draw in range(1, 5):  # draw 0 is the crop's own
                values.append(augment.uniform(augment.fold(key, draw), (2,), 0.0, 1.0))
            box = augment.crop_box(100, 100, augment.fold(key, 0), area=(0.08, 1.0))
            values.append(tf.cast(box, tf.float32)[::2])  # y and height
        return tf.concat(values, axis=0)

    table = mapped(draws, 4000)
    assert table.shape == (4000, 20)
    correlation = np.corrcoef(table.T)
    for box in (8, 18):  # a crop's height bounds its y
        correlation[box, box + 1] = correlation[box + 1, box] = 0
    assert np.abs(correlation - np.eye(20)).max() < 0.05


def test_neighbouring_examples_and_epochs_are_uncorrelated():
    def draws(i):
        kinds = [(0, i, 0), (1, i, 0), (0, i + 1, 0)]
        return tf.concat(
            [
                augment.uniform(augment.fold(augment.image_key(0, *kind), 1), (1,), 0.0, 1.0)
                for kind in kinds
            ],
            axis=0,
        )

    table = mapped(lambda i: draws(2 * i), 4000)
    assert np.abs(np.corrcoef(table.T) - np.eye(3)).max() < 0.05


def crop_by_hand(rng, height, width, area=(0.08, 1.0)):
    """The crop's law as TensorFlow documents it, in plain Python."""
    for _ in range(100):
        aspect = rng.uniform(3 / 4, 4 / 3)
        smallest, largest = area[0] * height * width, area[1] * height * width
        low = round(np.sqrt(smallest / aspect))
        high = round(np.sqrt(largest / aspect))
        if round(high * aspect) > width:
            high = int((width + 0.5 - 1e-7) / aspect)
        high, low = min(high, height), min(low, high)
        crop_height = low + (rng.integers(0, high - low + 1) if low < high else 0)
        crop_width = round(crop_height * aspect)
        if not smallest <= crop_height * crop_width <= largest or crop_width > width:
            continue
        if crop_height * crop_width < 0.1 * height * width:
            continue
        y = rng.integers(0, height - crop_height + 1)
        x = rng.integers(0, width - crop_width + 1)
        return y, x, crop_height, crop_width
    return 0, 0, height, width


@pytest.mark.parametrize("shape", [(32, 32), (150, 200), (500, 333)])
def test_crops_follow_the_law(rng, shape):
    boxes = mapped(
        lambda i: augment.crop_box(*shape, augment.fold(augment.image_key(5, 0, i, 0), 0),
                                   area=(0.08, 1.0)), 3000
    )  # fmt: skip
    expected = np.array([crop_by_hand(rng, *shape) for _ in range(3000)])
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "y": lambda b: b[:, 0],
        "x": lambda b: b[:, 1],
    }.items():
        assert stats.ks_2samp(of(boxes), of(expected)).pvalue > 1e-3, name
    assert (boxes[:, 0] + boxes[:, 2] <= shape[0]).all()
    assert (boxes[:, 1] + boxes[:, 3] <= shape[1]).all()


def keys_cubic(x):
    """Keys' kernel with a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@pytest.mark.parametrize("size", [8, 23, 64])
def test_resize_is_keys_bicubic_with_half_pixel_centres(rng, size):
    image = image_of(rng, 20, 20)
    centre = (np.arange(size) + 0.5) * 20 / size - 0.5
    weight = keys_cubic(centre[:, None] - np.arange(20)[None, :])
    weight /= weight.sum(axis=1, keepdims=True)
    expected = np.einsum("ij,jkc,lk->ilc", weight, image, weight)
    # 1e-3: TensorFlow looks the kernel up in a table of 1024 entries.
    np.testing.assert_allclose(augment.resize(image, size), expected, atol=4e-3)


def test_jitter_applies_its_operations_in_the_drawn_order_and_clips_after_each(rng):
    image = tf.clip_by_value(1.4 * image_of(rng, 6, 6), 0.0, 1.0)
    orders = set()
    for key in keys(24):
        seeds = augment.fold(key, 2), augment.fold(key, 3)
        draws = augment.uniform(seeds[0], (4,), -1.0, 1.0).numpy()
        order = np.argsort(augment.uniform(seeds[1], (4,), 0.0, 1.0))
        orders.add(tuple(order))
        expected = image
        for operation in order:
            if operation == 0:
                expected = expected * (1 + 0.8 * draws[0])
            elif operation == 1:
                expected = tf.image.adjust_contrast(expected, 1 + 0.8 * draws[1])
            elif operation == 2:
                expected = tf.image.adjust_saturation(expected, 1 + 0.8 * draws[2])
            else:
                expected = tf.image.adjust_hue(expected, 0.2 * draws[3])
            expected = np.clip(expected, 0, 1)
        jittered = augment.color_jitter(image, *seeds, strength=1.0, version="v2")
        np.testing.assert_allclose(jittered, expected, atol=1e-5)
    assert len(orders) > 12  # of 24


@pytest.mark.parametrize(
    ("version", "low", "width"),
    [("v2", 0.3, 0.4), ("v1", 0.1, 0.8)],  # 0.5·U(0.6, 1.4) and 0.5 + U(-0.4, 0.4)
)
def test_jitter_changes_brightness_within_its_range(version, low, width):
    grey = np.full((4, 4, 3), 0.5, np.float32)  # contrast, saturation and hue leave it alone

    def level(i):
        key = augment.image_key(0, 0, i, 0)
        seeds = augment.fold(key, 2), augment.fold(key, 3)
        return augment.color_jitter(grey, *seeds, strength=0.5, version=version)[0, 0, 0]

    assert stats.kstest(mapped(level, 1000), stats.uniform(low, width).cdf).pvalue > 1e-3


def test_probabilities_of_flip_grey_and_blur(rng):
    image = image_of(rng, 16, 16)

    def flags(i):
        key = augment.image_key(0, 0, i, 0)
        flipped, _ = augment.random_view(image, key, **{**ALL, "ops": ("flip",)})
        grey, _ = augment.random_view(image, key, **{**ALL, "ops": ("grey",)})
        _, sigma = augment.random_view(image, key, **{**ALL, "ops": ("blur",), "blur_here": False})
        moved = tf.reduce_max(tf.abs(flipped - image)) > 1e-3
        colour = tf.reduce_max(tf.abs(grey[..., 0] - grey[..., 1])) < 1e-6
        return tf.stack([tf.cast(moved, tf.float32), tf.cast(colour, tf.float32), sigma])

    moved, colour, sigma = mapped(flags, 2000).T
    assert abs(moved.mean() - 0.5) < 0.05
    assert abs(colour.mean() - 0.2) < 0.04
    assert abs((sigma > 0).mean() - 0.5) < 0.05
    assert stats.kstest(sigma[sigma > 0], stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


def test_strength_zero_turns_colour_off(rng):
    image = image_of(rng, 16, 16)
    options = {**ALL, "ops": ("jitter", "grey"), "strength": 0.0}
    for key in keys(20):
        view, _ = augment.random_view(image, key, **options)
        np.testing.assert_allclose(view, image, atol=1e-6)


def test_an_operation_left_out_does_not_change_the_others(rng):
    image = image_of(rng)
    for key in keys(10):
        with_blur, _ = augment.random_view(image, key, **{**ALL, "blur_here": False})
        without, _ = augment.random_view(image, key, **{**ALL, "ops": ALL["ops"][:-1]})
        np.testing.assert_array_equal(with_blur, without)


@pytest.mark.parametrize(("size", "taps"), [(32, 3), (64, 7), (96, 9), (224, 23), (8, 1)])
def test_blur_taps(size, taps):
    assert augment.blur_taps(size) == taps


def test_evaluation_crops_the_centre_of_large_images(rng):
    image = image_of(rng, 80, 120)
    view = augment.eval_view(image, size=70)
    np.testing.assert_allclose(view, image[5:75, 25:95], atol=1e-5)


def test_evaluation_keeps_small_images_whole(rng):
    image = image_of(rng, 32, 32)
    np.testing.assert_array_equal(augment.eval_view(image, size=32), image)
    assert augment.eval_view(image_of(rng, 40, 30), size=32).shape == (32, 32, 3)
