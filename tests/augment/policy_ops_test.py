"""The operations of the policies, each against Pillow's."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from simclr_jax.augment import draws, host, policies, policy_ops
from support.views import ALL, image_of, row, some_keys


def affine(matrix):
    def apply(image, by):
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix(by, image.size[0]),
            Image.Resampling.NEAREST, fillcolor=(128, 128, 128),
        )  # fmt: skip

    return apply


PILLOW = {
    "identity": lambda image, by: image,
    "autocontrast": lambda image, by: ImageOps.autocontrast(image),
    "equalize": lambda image, by: ImageOps.equalize(image),
    "invert": lambda image, by: ImageOps.invert(image),
    "rotate": lambda image, by: image.rotate(by, fillcolor=(128, 128, 128)),
    "posterize": lambda image, by: ImageOps.posterize(image, int(by)),
    "solarize": lambda image, by: ImageOps.solarize(image, int(by)),
    "color": lambda image, by: ImageEnhance.Color(image).enhance(by),
    "contrast": lambda image, by: ImageEnhance.Contrast(image).enhance(by),
    "brightness": lambda image, by: ImageEnhance.Brightness(image).enhance(by),
    "sharpness": lambda image, by: ImageEnhance.Sharpness(image).enhance(by),
    "shear_x": affine(lambda by, side: (1, by, 0, 0, 1, 0)),
    "shear_y": affine(lambda by, side: (1, 0, 0, by, 1, 0)),
    "translate_x": affine(lambda by, side: (1, 0, by * side, 0, 1, 0)),
    "translate_y": affine(lambda by, side: (1, 0, 0, 0, 1, by * side)),
}


@pytest.fixture
def photograph(rng):
    """An image (33, 33, 3) uint8 whose channels have different ranges and whose top is darker."""
    ramp = np.linspace(-40, 40, 33)[:, None, None] + np.array([0, 20, -20])
    return np.clip(rng.normal(120, 30, (33, 33, 3)) + ramp, 5, 250).astype(np.uint8)


def applied(name, image, by):
    made = policy_ops.FUNCTIONS[name](tf.constant(image, tf.int32), tf.constant(by, tf.float32))
    return np.asarray(made)


@pytest.mark.parametrize("name", policies.OPERATIONS)
def test_an_operation_is_pillows(photograph, name):
    for level in (0, 2, 7, 9):
        for sign in (1, -1) if policies.OPERATIONS[name].signed else (1,):
            by = sign * policies.magnitude(name, level)
            expected = np.asarray(PILLOW[name](Image.fromarray(photograph), by)).astype(int)
            found = applied(name, photograph, by)
            # One level where a value is rounded, another pixel where two are equally near.
            assert (np.abs(found - expected) > 1).mean() < 1e-3, (level, sign)
            assert (found != expected).mean() < 0.02, (level, sign)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("name", ["autocontrast", "equalize", "contrast", "sharpness"])
def test_a_flat_image_stays_as_pillow_has_it(name, value):
    flat = np.full((8, 8, 3), value, np.uint8)
    expected = np.asarray(PILLOW[name](Image.fromarray(flat), 1.9))
    np.testing.assert_array_equal(applied(name, flat, 1.9), expected)


def test_a_policy_applies_its_steps_in_their_order(photograph):
    views = replace(ALL, size=33)
    names = list(policies.OPERATIONS)
    for first, second in (("invert", "solarize"), ("solarize", "invert"), ("identity", "rotate")):
        steps = policies.Steps(
            tf.constant([names.index(first), names.index(second)]), tf.constant([100.0, 100.0])
        )
        made = policy_ops.policy(tf.constant(photograph / 255.0, tf.float32), steps, views)
        expected = applied(second, applied(first, photograph, 100.0), 100.0)
        np.testing.assert_allclose(made, expected / 255.0, atol=1e-6)


def test_every_operation_has_its_function_in_the_order_of_their_numbers():
    assert [*policy_ops.FUNCTIONS] == [*policies.OPERATIONS] == [*PILLOW]


def test_a_policy_in_a_dataset_equals_the_eager_one(rng):
    image = image_of(rng, 20, 20)
    views = replace(ALL, ops=(("crop", "randaugment"),))
    side = np.full(6, 20)
    drawn = draws.draw(some_keys(6, seed=1), side, side, views, 0)

    def view(draw):
        return host.random_view(image, draw, views.ops[0], views)

    eager = np.stack([view(row(drawn, i)) for i in range(6)])
    dataset = tf.data.Dataset.from_tensor_slices(drawn).map(view)
    inside = np.stack(list(dataset.as_numpy_iterator()))
    assert (np.abs(inside - eager) > 1.01 / 255).mean() < 1e-3
    assert (np.abs(inside - eager) > 1e-6).mean() < 0.02
