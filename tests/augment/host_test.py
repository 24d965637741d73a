"""Draws applied by TensorFlow: eager against inside a dataset, and against NumPy."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.augment import draws, host, keys
from support.views import ALL, PIPELINE, image_of, row, some_keys


def test_view_in_a_dataset_equals_the_eager_one(rng):
    """Of all operations, in another order than that of the default."""
    image = image_of(rng)
    others = (name for name in draws.OPS if name not in ("shared_crop", *PIPELINE))
    order = ("shared_crop", "crop", *others, *PIPELINE[1:])
    views = replace(ALL, ops=(order,))
    height, width = np.full(6, 40), np.full(6, 50)
    drawn = draws.draw(some_keys(6, seed=1), height, width, views, 0)

    def view(draw):
        return host.random_view(image, draw, order, views)

    dataset = tf.data.Dataset.from_tensor_slices(drawn).map(view)
    inside = np.stack(list(dataset.as_numpy_iterator()))
    eager = np.stack([view(row(drawn, i)) for i in range(6)])
    np.testing.assert_allclose(inside, eager, atol=1e-5)
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
    of_images = some_keys(24)
    numbers = keys.uniform(keys.fold(of_images, 2), 4, -1.0, 1.0)
    seeds = keys.fold(of_images, 2), keys.fold(of_images, 3)
    drawn = draws.jitter(np.ones(24, bool), *seeds, strength=1.0, brightness="v2")
    for number, draw in zip(numbers, map(partial(row, drawn), range(24)), strict=True):
        expected = image
        for operation in draw.order.numpy():
            if operation == 0:
                expected = expected * (1 + 0.8 * number[0])
            elif operation == 1:
                expected = tf.image.adjust_contrast(expected, 1 + 0.8 * number[1])
            elif operation == 2:
                expected = tf.image.adjust_saturation(expected, 1 + 0.8 * number[2])
            else:
                expected = tf.image.adjust_hue(expected, 0.2 * number[3])
            expected = np.clip(expected, 0, 1)
        np.testing.assert_allclose(host.color_jitter(image, draw, ALL), expected, atol=1e-5)
        unjittered = host.color_jitter(image, draw._replace(applied=tf.constant(False)), ALL)
        np.testing.assert_array_equal(unjittered, image)


def test_a_view_is_made_of_its_draw_alone(rng):
    """The box, the mirror and the grey of a draw that nobody drew."""
    image = image_of(rng, 30, 20)
    draw = {"crop": tf.constant([4, 2, 16, 16]), "flip": tf.constant(True)}
    view = host.random_view(image, draw, ("crop", "flip"), ALL)
    np.testing.assert_allclose(view, image[4:20, 2:18][:, ::-1], atol=1e-6)
    grey = host.random_view(image, draw | {"grey": tf.constant(True)}, ("crop", "grey"), ALL)
    np.testing.assert_allclose(grey, host.greyscale(image[4:20, 2:18]), atol=1e-6)
    full = host.random_view(image, {}, (), ALL)
    np.testing.assert_allclose(full, host.resize(image, 16), atol=1e-6)


def test_evaluation_crops_the_centre_of_large_images(rng):
    image = image_of(rng, 80, 120)
    view = host.eval_view(image, size=70)
    np.testing.assert_allclose(view, image[5:75, 25:95], atol=1e-5)


def test_evaluation_keeps_small_images_whole(rng):
    image = image_of(rng, 32, 32)
    np.testing.assert_array_equal(host.eval_view(image, size=32), image)
    assert host.eval_view(image_of(rng, 40, 30), size=32).shape == (32, 32, 3)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_than_three_keep_hue_and_saturation(rng, channels):
    """With one factor of the brightness, and the contrast about the mean of each channel."""
    image = tf.constant(rng.uniform(0.3, 0.6, (16, 16, channels)), tf.float32)
    views = replace(ALL, channels=channels)
    drawn = draws.draw(some_keys(12), np.full(12, 16), np.full(12, 16), views, 0, ["jitter"])
    for number in range(12):
        draw = row(drawn["jitter"], number)._replace(applied=tf.constant(True))
        expected = image.numpy()
        for operation in draw.order.numpy():
            if operation == 0:
                expected = expected * draw.brightness.numpy()
            elif operation == 1:
                mean = expected.mean(axis=(0, 1), keepdims=True)
                expected = (expected - mean) * draw.contrast.numpy() + mean
            expected = np.clip(expected, 0, 1)
        np.testing.assert_allclose(host.color_jitter(image, draw, views), expected, atol=1e-5)


def test_every_operation_but_those_of_colours_takes_five_channels(rng):
    image = tf.constant(rng.uniform(size=(40, 50, 5)), tf.float32)
    order = tuple(name for name in draws.OPS if name != "shared_crop")
    views = replace(ALL, ops=(order, order), channels=5)
    assert views.applied(0) == tuple(name for name in order if name != "grey")
    drawn = draws.draw(some_keys(4), np.full(4, 40), np.full(4, 50), views, 0)
    for number in range(4):
        made = host.random_view(image, row(drawn, number), views.applied(0), views)
        assert made.shape == (16, 16, 5)
