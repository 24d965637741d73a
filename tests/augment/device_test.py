"""What the device does to images, against the host and against NumPy."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.augment import crops, device, draws, host
from simclr_jax.augment.device import gaussian_blur, views_of
from support.views import ALL, PIPELINE, row, some_keys


def test_views_travel_side_by_side_and_uint8_is_scaled():
    image = np.arange(2 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 4, 3)
    views = views_of({"image": jnp.asarray(image)})
    np.testing.assert_allclose(views, image.reshape(4, 4, 4, 3) / 255.0, rtol=1e-6)


def test_blur_in_the_step_equals_blur_on_the_host(rng):
    images = rng.uniform(size=(4, 32, 32, 3)).astype(np.float32)
    sigma = np.array([0.0, 0.1, 0.7, 2.0], np.float32)
    in_step = gaussian_blur(jnp.asarray(images), jnp.asarray(sigma), radius=1)
    on_host = [host.gaussian_blur(image, s).numpy() for image, s in zip(images, sigma, strict=True)]
    np.testing.assert_allclose(in_step, np.stack(on_host), atol=1e-6)
    np.testing.assert_array_equal(in_step[0], images[0])


def test_blur_equals_a_direct_convolution(rng):
    image = rng.uniform(size=(20, 20, 3))
    sigma, radius = 1.3, 3
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)))
    expected = sum(
        taps[i] * taps[j] * padded[i : i + 20, j : j + 20]
        for i in range(2 * radius + 1)
        for j in range(2 * radius + 1)
    )
    blurred = gaussian_blur(jnp.asarray(image[None]), jnp.asarray([sigma]), radius=radius)
    np.testing.assert_allclose(blurred[0], expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (20, 30, 48), (1, 1, 4)])
def test_crops_of_a_batch_are_those_of_the_host(rng, height, width, size):
    images = rng.integers(0, 256, (16, height, width, 3), np.uint8)
    sides = np.full(16, height), np.full(16, width)
    boxes = crops.boxes(*sides, some_keys(16), area=(0.08, 1.0))
    found = device.crop_and_resize(jnp.asarray(images), jnp.asarray(boxes), size)
    expected = [
        host.resize(tf.constant(image), size, tf.constant(box))
        for image, box in zip(images, boxes, strict=True)
    ]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize(
    "ops", [2 * (PIPELINE[1:],), (("grey", "flip"), ("blur", "jitter")), ((), ("jitter",))]
)
def test_a_batch_is_augmented_as_the_host_augments_each_image(rng, ops, in_turn, version):
    """From 5 % below black to 5 % above white, as a bicubic resize may leave images."""
    images = rng.uniform(-0.05, 1.05, (12, 2, 16, 16, 3)).astype(np.float32)
    images[0], images[1] = 0.4, [[[0.9, 0.9, 0.2]]]
    compare(images, replace(ALL, ops=ops, brightness=version), in_turn)


@pytest.mark.parametrize(("channels", "in_turn"), [(1, True), (5, False)])
def test_images_of_other_channels_are_augmented_as_on_the_host(rng, channels, in_turn):
    images = rng.uniform(-0.05, 1.05, (12, 2, 16, 16, channels)).astype(np.float32)
    compare(images, replace(ALL, ops=2 * (PIPELINE[1:],), channels=channels), in_turn)


def compare(images, views, in_turn):
    """Compares the late operations of a batch with those of TensorFlow on each image."""
    ops = tuple(views.applied(view) for view in range(2))
    side, of_views = np.full(12, 16), [some_keys(12, view) for view in range(2)]
    late = device.late_of(views, "host")
    assert late.ops == ops
    numbers = device.numbers_of(late, of_views, views)
    apply = partial(device.apply_in_turn, then=lambda view: view) if in_turn else device.apply
    found = jax.jit(apply, static_argnames="late")(images, numbers, late=late)
    expected = images.copy()
    for view in range(2):
        drawn = draws.draw(of_views[view], side, side, views, view)
        for number in range(12):
            image = tf.constant(images[number, view])
            for name in ops[view]:
                image = host.OPS[name](image, row(drawn[name], number), views)
            expected[number, view] = image
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=3e-6)
