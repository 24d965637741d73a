"""Draws applied by TensorFlow: eager against inside a dataset, and against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.augment import draws, host, keys
from support.views import ALL, PIPELINE, image_of, mapped, some_keys


def view_of(image, key, **changes):
    """The view and the sigma left to the device, by `ALL` with changes."""
    views = replace(ALL, **changes)
    shape = tf.shape(image)
    return host.random_view(image, draws.draw(key, shape[0], shape[1], views, 0), views)


def test_view_in_a_dataset_equals_the_eager_one(rng):
    """Of all operations, in another order than that of the default."""
    image = image_of(rng)
    others = (name for name in draws.OPS if name not in ("shared_crop", *PIPELINE))
    order = ("shared_crop", "crop", *others, *PIPELINE[1:])

    def view(i):
        return view_of(image, keys.image_key(1, 2, i, 0), ops=(order,))[0]

    inside = mapped(view, 6)
    eager = np.stack([view(tf.constant(i, tf.int64)).numpy() for i in range(6)])
    np.testing.assert_allclose(inside, eager, atol=1e-5)
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert np.std(inside, axis=0).max() > 0.1  # examples differ


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
    np.testing.assert_allclose(host.resize(image, size), expected, atol=4e-3)


def test_jitter_applies_its_operations_in_the_drawn_order_and_clips_after_each(rng):
    image = tf.clip_by_value(1.4 * image_of(rng, 6, 6), 0.0, 1.0)
    orders = set()
    for key in some_keys(24):
        seeds = keys.fold(key, 2), keys.fold(key, 3)
        numbers = keys.uniform(seeds[0], (4,), -1.0, 1.0).numpy()
        order = np.argsort(keys.uniform(seeds[1], (4,), 0.0, 1.0))
        orders.add(tuple(order))
        expected = image
        for operation in order:
            if operation == 0:
                expected = expected * (1 + 0.8 * numbers[0])
            elif operation == 1:
                expected = tf.image.adjust_contrast(expected, 1 + 0.8 * numbers[1])
            elif operation == 2:
                expected = tf.image.adjust_saturation(expected, 1 + 0.8 * numbers[2])
            else:
                expected = tf.image.adjust_hue(expected, 0.2 * numbers[3])
            expected = np.clip(expected, 0, 1)
        draw = draws.jitter(tf.constant(True), *seeds, strength=1.0, brightness="v2")
        np.testing.assert_allclose(host.color_jitter(image, draw, ALL), expected, atol=1e-5)
        unjittered = host.color_jitter(image, draw._replace(applied=tf.constant(False)), ALL)
        np.testing.assert_array_equal(unjittered, image)
    assert len(orders) > 12  # of 24


def test_a_view_is_made_of_its_draw_alone(rng):
    """The box, the mirror and the grey of a draw that nobody drew."""
    image = image_of(rng, 30, 20)
    draw = {"crop": tf.constant([4, 2, 16, 16]), "flip": tf.constant(True)}
    view, sigma = host.random_view(image, draw, ALL)
    np.testing.assert_allclose(view, image[4:20, 2:18][:, ::-1], atol=1e-6)
    assert sigma == 0
    view, sigma = host.random_view(
        image, draw | {"grey": tf.constant(True), "blur": 1.5}, replace(ALL, blur_on="device")
    )
    np.testing.assert_allclose(view, host.greyscale(image[4:20, 2:18][:, ::-1]), atol=1e-6)
    assert sigma == 1.5


def test_strength_zero_turns_colour_off(rng):
    image = image_of(rng, 16, 16)
    for key in some_keys(20):
        view, _ = view_of(image, key, ops=(("jitter", "grey"),), strength=0.0)
        np.testing.assert_allclose(view, image, atol=1e-6)


def test_an_operation_left_out_does_not_change_the_others(rng):
    image = image_of(rng)
    for key in some_keys(10):
        with_blur, _ = view_of(image, key, blur_on="device")
        without, _ = view_of(image, key, ops=(PIPELINE[:-1],))
        np.testing.assert_array_equal(with_blur, without)


def test_evaluation_crops_the_centre_of_large_images(rng):
    image = image_of(rng, 80, 120)
    view = host.eval_view(image, size=70)
    np.testing.assert_allclose(view, image[5:75, 25:95], atol=1e-5)


def test_evaluation_keeps_small_images_whole(rng):
    image = image_of(rng, 32, 32)
    np.testing.assert_array_equal(host.eval_view(image, size=32), image)
    assert host.eval_view(image_of(rng, 40, 30), size=32).shape == (32, 32, 3)
