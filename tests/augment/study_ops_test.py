"""What the study's operations do to an image, against NumPy and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scipy import ndimage, stats

from simclr_jax.augment import host, study, study_ops
from support.views import ALL, image_of

VIEWS = replace(ALL, size=9)


def test_cutout_covers_a_square_around_its_centre_and_nothing_else(rng):
    image = image_of(rng, 9, 9).numpy()
    for y, x in ((4, 5), (0, 0), (8, 3), (1, 8)):
        expected = image.copy()
        for row in range(y - 2, y + 2):  # A side of 9 // 2 pixels.
            for column in range(x - 2, x + 2):
                if 0 <= row < 9 and 0 <= column < 9:
                    expected[row, column] = 0.5
        covered = study_ops.cutout(image, tf.constant([y, x]), VIEWS)
        np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize("turns", range(4))
def test_a_turn_is_numpys(rng, turns):
    image = image_of(rng, 9, 9).numpy()
    found = study_ops.rotate(image, tf.constant(turns), VIEWS)
    np.testing.assert_array_equal(found, np.rot90(image, turns))


def test_noise_is_gaussian_clipped_and_a_function_of_its_seed():
    views = replace(ALL, size=64)
    grey = np.full((64, 64, 3), 0.5, np.float32)

    def noisy(number, image=grey, *, applied=True):
        seed = tf.constant([7, number], tf.int64)
        return np.asarray(study_ops.noise(image, study.Noise(tf.constant(applied), seed), views))

    added = noisy(0) - 0.5
    assert stats.kstest(added.ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(noisy(0), noisy(0))
    other = noisy(1) - 0.5
    assert abs(np.corrcoef(added.ravel(), other.ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.07
    white = noisy(0, np.ones((64, 64, 3), np.float32))
    np.testing.assert_allclose(white, np.minimum(1 + added, 1), atol=1e-6)
    np.testing.assert_array_equal(noisy(0, applied=False), grey)


def test_edges_are_scipys_sobel(rng):
    image = image_of(rng, 9, 9).numpy()
    channels = np.moveaxis(image, -1, 0)
    gradient = [[ndimage.sobel(x, axis, mode="mirror") for x in channels] for axis in (0, 1)]
    expected = np.clip(np.moveaxis(np.hypot(*gradient), 0, -1) / 4, 0, 1)
    found = study_ops.sobel(image, tf.constant(True), VIEWS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(study_ops.sobel(image, tf.constant(False), VIEWS), image)


def test_equalized_channels_are_pillows(rng):
    image = rng.integers(90, 180, (9, 9, 3)).astype(np.uint8)
    expected = np.asarray(ImageOps.equalize(Image.fromarray(image))) / 255
    found = study_ops.equalize(image / np.float32(255), tf.constant(True), VIEWS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    unchanged = study_ops.equalize(image / np.float32(255), tf.constant(False), VIEWS)
    np.testing.assert_array_equal(unchanged, image / np.float32(255))


def test_solarization_inverts_the_bright_values():
    image = np.float32([[[-0.1, 0.2, 0.49], [0.5, 0.9, 1.1]]])
    found = study_ops.solarize(image, tf.constant(True), VIEWS)
    np.testing.assert_allclose(found, [[[0.0, 0.2, 0.49], [0.5, 0.1, 0.0]]], atol=1e-6)
    np.testing.assert_array_equal(study_ops.solarize(image, tf.constant(False), VIEWS), image)


@pytest.mark.parametrize("degrees", [0, 30, 90, 137])
def test_motion_blur_is_the_mean_of_scipys_shifts(rng, degrees):
    image, angle = image_of(rng, 30, 30).numpy(), np.deg2rad(degrees)
    views = replace(ALL, size=30)
    expected = np.mean(
        [
            ndimage.shift(
                image, (-t * np.sin(angle), -t * np.cos(angle), 0), order=1, mode="reflect"
            )
            for t in (-1, 0, 1)
        ],
        axis=0,
    )
    draw = study.Motion(tf.constant(True), tf.constant(angle, tf.float32))
    np.testing.assert_allclose(study_ops.motion_blur(image, draw, views), expected, atol=1e-5)
    still = study_ops.motion_blur(image, draw._replace(applied=tf.constant(False)), views)
    np.testing.assert_array_equal(still, image)


def view_of(image, draw, *ops):
    """A view by a list of operations."""
    return host.random_view(image, draw, ops, replace(ALL, ops=(ops,)))


def test_operations_are_applied_in_the_order_listed(rng):
    image = image_of(rng, 16, 16)
    draw = {"cutout": tf.constant([3, 5]), "rotate": tf.constant(1)}
    covered = view_of(image, draw, "cutout")
    turned = view_of(image, draw, "cutout", "rotate")
    np.testing.assert_array_equal(turned, np.rot90(covered))
    assert (turned != view_of(image, draw, "rotate", "cutout")).numpy().any()
