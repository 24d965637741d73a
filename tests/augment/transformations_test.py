"""Transformations: the law of each, and what it does against TensorFlow's or NumPy's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.augment import host
from simclr_jax.augment.transformations import TRANSFORMATIONS, Noise, apply, draw
from simclr_jax.errors import ArgumentError


@pytest.fixture
def images(rng):
    return rng.random((6, 8, 8, 3)).astype(np.float32)


def changed(name, images, labels, *, places=None, sigma=0.1):
    places = np.arange(len(images)) if places is None else places
    noise = Noise(jax.random.key(0), jnp.asarray(places, jnp.int32), sigma)
    return np.asarray(jax.jit(lambda x: apply(name, x, jnp.asarray(labels), noise))(images))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_labels_follow_the_law_and_depend_on_the_place_alone(name):
    shares = TRANSFORMATIONS[name].shares
    labels = draw(name, 40_000, seed=3, stream=0)
    np.testing.assert_allclose(np.bincount(labels) / len(labels), shares, atol=0.01)
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_array_equal(draw(name, 100, seed=3, stream=0), labels[:100])
    for other in (draw(name, 40_000, seed=3, stream=1), draw(name, 40_000, seed=4, stream=0)):
        same = (labels == other).mean()
        assert same == pytest.approx(np.square(shares).sum(), abs=0.01)  # independent


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_label_0_leaves_the_image_as_it_is(name, images):
    labels = np.int32([0, 1, 0, 1, 0, 1])
    found = changed(name, images, labels)
    np.testing.assert_array_equal(found[::2], images[::2])
    assert (np.abs(found[1::2] - images[1::2]).mean(axis=(1, 2, 3)) > 0.01).all()
    assert (found.min(), found.max()) >= (0, 0)
    assert found.max() <= 1


def test_grey_is_the_pretrainings(images):
    found = changed("colour", images, np.ones(6, np.int32))
    np.testing.assert_allclose(found, host.greyscale(tf.constant(images)), atol=1e-6)


def test_a_turn_is_numpys(images):
    labels = np.int32([0, 1, 2, 3, 3, 1])
    expected = [np.rot90(image, turns) for image, turns in zip(images, labels, strict=True)]
    np.testing.assert_array_equal(changed("rotation", images, labels), expected)


def test_edges_are_those_of_sobel(images):
    found = changed("sobel", images, np.ones(6, np.int32))
    gradient = tf.image.sobel_edges(tf.constant(images))
    expected = tf.clip_by_value(tf.norm(gradient, axis=-1) / 4, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    step = np.broadcast_to(np.arange(8)[None, None, :, None] > 3, (1, 8, 8, 3)).astype(np.float32)
    edge = changed("sobel", step, np.ones(1, np.int32))
    assert edge[0, 4, :, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_noise_is_gaussian_and_depends_on_the_image_alone():
    grey = np.full((64, 16, 16, 3), 0.5, np.float32)
    ones = np.ones(64, np.int32)
    found = changed("noise", grey, ones) - 0.5
    assert found.std() == pytest.approx(0.1, rel=0.02)
    assert abs(found.mean()) < 0.002
    assert (np.abs(found) < 0.1).mean() == pytest.approx(0.683, abs=0.01)
    backwards = changed("noise", grey, ones, places=np.arange(64)[::-1]) - 0.5
    np.testing.assert_array_equal(found, backwards[::-1])
    assert len({image.tobytes() for image in found}) == 64


def test_an_unknown_transformation_is_answered_with_those_there_are():
    with pytest.raises(ArgumentError, match="must be one of colour, rotation, noise, sobel"):
        draw("hue", 1, seed=0, stream=0)
